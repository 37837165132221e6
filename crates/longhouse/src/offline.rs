//! Which providers are emulated.

use longhouse_config::{Config, Offline};

/// The providers that emulators stand in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Emulated {
    /// The OpenAI Realtime API.
    pub(crate) openai: bool,
    /// Webhooks signed by `longhouse call` instead of by Twilio.
    pub(crate) twilio: bool,
}

impl Emulated {
    /// Decides from the configuration alone.
    pub(crate) fn of(config: &Config) -> Self {
        let (openai, twilio) = (config.openai.api_key.is_some(), config.twilio.auth_token.is_some());
        match config.offline {
            Offline::Always => Self { openai: true, twilio: true },
            Offline::Never => Self { openai: false, twilio: false },
            // Real callers must never talk to the emulator because a key was forgotten.
            Offline::Auto => Self { openai: !openai && !twilio, twilio: !twilio },
        }
    }

    /// Whether calls arrive that no model answers, for want of a key.
    pub(crate) fn leaves_callers_unanswered(self, config: &Config) -> bool {
        config.receptionist.enabled && !self.openai && config.openai.api_key.is_none()
    }

    /// Names for people.
    pub(crate) fn names(self) -> Vec<String> {
        [(self.openai, "OpenAI Realtime"), (self.twilio, "Twilio")]
            .into_iter()
            .filter(|(emulated, _)| *emulated)
            .map(|(_, name)| name.to_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::no_keys(Offline::Auto, None, None, (true, true))]
    #[case::one_key(Offline::Auto, Some("k"), None, (false, true))]
    #[case::real_callers(Offline::Auto, None, Some("t"), (false, false))]
    #[case::keys(Offline::Auto, Some("k"), Some("t"), (false, false))]
    #[case::always(Offline::Always, Some("k"), Some("t"), (true, true))]
    #[case::never(Offline::Never, None, None, (false, false))]
    fn providers_without_a_key_are_emulated_but_not_for_real_callers(
        #[case] offline: Offline,
        #[case] openai: Option<&str>,
        #[case] twilio: Option<&str>,
        #[case] expected: (bool, bool),
    ) {
        let mut config = Config { offline, ..Config::default() };
        config.openai.api_key = openai.map(Into::into);
        config.twilio.auth_token = twilio.map(Into::into);
        let emulated = Emulated::of(&config);
        assert_eq!((emulated.openai, emulated.twilio), expected);
        assert_eq!(emulated.leaves_callers_unanswered(&config), openai.is_none() && !expected.0);
    }
}
