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
            Offline::Auto => Self { openai: !openai, twilio: !twilio },
        }
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
    #[case::keys(Offline::Auto, Some("k"), Some("t"), (false, false))]
    #[case::always(Offline::Always, Some("k"), Some("t"), (true, true))]
    #[case::never(Offline::Never, None, None, (false, false))]
    fn providers_without_a_key_are_emulated(
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
    }
}
