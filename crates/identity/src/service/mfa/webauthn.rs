//! WebAuthn ceremonies, for security keys as a second factor and for passkeys.
//!
//! webauthn-rs' core is used instead of its wrapper because accounts move between Supabase Auth and here with their
//! keys: the user handle is the account's id as text, and credentials are stored as Supabase Auth stores them.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_cbor_2::Value as Cbor;
use serde_json::Value;
use url::Url;
use uuid::Uuid;
use webauthn_rs_core::WebauthnCore;
use webauthn_rs_core::error::WebauthnError;
use webauthn_rs_core::proto::{
    AttestationFormat, AttestationMetadata, AuthenticationState, AuthenticatorTransport, COSEKey,
    COSEKeyType, Credential, ECDSACurve, EDDSACurve, ParsedAttestation, ParsedAttestationData,
    PublicKeyCredential, RegisterPublicKeyCredential, RegisteredExtensions, RegistrationState,
    UserVerificationPolicy,
};

use crate::service::error::AuthApiError;
use crate::service::options::AuthOptions;
use crate::service::store::{Passkey, User};

/// A credential, in the JSON of `auth.mfa_factors.web_authn_credential`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredCredential {
    #[serde(with = "base64_text")]
    pub(crate) id: Vec<u8>,
    /// COSE key (RFC 9052) as CBOR.
    #[serde(with = "base64_text")]
    pub(crate) public_key: Vec<u8>,
    #[serde(default)]
    pub(crate) attestation_type: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) transport: Vec<String>,
    #[serde(default)]
    pub(crate) flags: Flags,
    #[serde(default)]
    pub(crate) authenticator: Authenticator,
}

/// What the authenticator said about itself and its holder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Flags {
    pub(crate) user_present: bool,
    pub(crate) user_verified: bool,
    pub(crate) backup_eligible: bool,
    pub(crate) backup_state: bool,
}

/// Model and counter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Authenticator {
    #[serde(rename = "AAGUID", with = "base64_text")]
    pub(crate) aaguid: Vec<u8>,
    pub(crate) sign_count: u32,
    pub(crate) clone_warning: bool,
}

/// What a successful assertion tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asserted {
    pub(crate) sign_count: u32,
    pub(crate) backup_state: bool,
}

/// Whether the authenticator must be able to list its keys (passkeys), or is asked for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Residence {
    Required,
    Any,
}

/// This service, as authenticators know it.
pub(crate) struct RelyingParty {
    core: WebauthnCore,
}

impl RelyingParty {
    /// # Errors
    /// The settings name no domain.
    pub(crate) fn new(options: &AuthOptions) -> Result<Self, AuthApiError> {
        let site = &options.site_url;
        let missing =
            || AuthApiError::internal("WebAuthn needs auth.webauthn_rp_id, or a site_url with a host");
        let id = options.mfa.rp_id.as_deref().or_else(|| site.host_str()).ok_or_else(missing)?;
        let origins = match options.mfa.rp_origins.as_slice() {
            [] => vec![origin(site).ok_or_else(missing)?],
            origins => origins.to_vec(),
        };
        let core = WebauthnCore::new_unsafe_experts_only(
            &options.mfa.issuer,
            id,
            origins,
            options.mfa.challenge_expiry,
            Some(false),
            Some(false),
        );
        Ok(Self { core })
    }

    /// Asks for a new key: `publicKey` options for the page, and the state to check its answer with.
    ///
    /// # Errors
    /// 500.
    pub(crate) fn begin_registration(
        &self,
        user: &User,
        known: Vec<Vec<u8>>,
        residence: Residence,
    ) -> Result<(Value, Value), AuthApiError> {
        let id = user.id.to_string();
        let name = [&user.email, &user.phone, &id]
            .into_iter()
            .find(|name| !name.is_empty())
            .expect("an id is not empty");
        let display = user.user_metadata.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let builder = self
            .core
            .new_challenge_register_builder(id.as_bytes(), name, display.unwrap_or(name))
            .map_err(AuthApiError::internal)?
            .user_verification_policy(UserVerificationPolicy::Preferred)
            .exclude_credentials(Some(known))
            .require_resident_key(residence == Residence::Required);
        let (options, state) =
            self.core.generate_challenge_register(builder).map_err(AuthApiError::internal)?;
        Ok((json(&options.public_key)?, json(&state)?))
    }

    /// Checks the answer with a new key.
    ///
    /// # Errors
    /// The answer is not one, or not to this question.
    pub(crate) fn finish_registration(
        &self,
        answer: &Value,
        state: Value,
    ) -> Result<StoredCredential, CeremonyError> {
        let answer: RegisterPublicKeyCredential =
            serde_json::from_value(answer.clone()).map_err(|_| CeremonyError::Unreadable)?;
        let state: RegistrationState =
            serde_json::from_value(state).map_err(|_| CeremonyError::Unreadable)?;
        let credential = self.core.register_credential(&answer, &state, None)?;
        Ok(StoredCredential {
            public_key: cose(&credential.cred).ok_or(CeremonyError::Unreadable)?,
            id: credential.cred_id,
            attestation_type: "none".to_owned(),
            transport: transports(credential.transports.as_deref()),
            flags: Flags {
                user_present: true,
                user_verified: credential.user_verified,
                backup_eligible: credential.backup_eligible,
                backup_state: credential.backup_state,
            },
            authenticator: Authenticator {
                aaguid: aaguid(answer.response.attestation_object.as_ref()).unwrap_or([0; 16]).to_vec(),
                sign_count: credential.counter,
                clone_warning: false,
            },
        })
    }

    /// Asks for proof of one of these keys; of none: of any that the authenticator has for us.
    ///
    /// # Errors
    /// 500, also when a stored key is damaged.
    pub(crate) fn begin_authentication(
        &self,
        credentials: &[StoredCredential],
    ) -> Result<(Value, Value), AuthApiError> {
        let credentials =
            credentials.iter().map(|stored| stored.credential().ok_or(())).collect::<Result<_, _>>();
        let credentials =
            credentials.map_err(|()| AuthApiError::internal("a stored WebAuthn credential is damaged"))?;
        let builder = self
            .core
            .new_challenge_authenticate_builder(credentials, Some(UserVerificationPolicy::Preferred))
            .map_err(AuthApiError::internal)?;
        let (options, state) =
            self.core.generate_challenge_authenticate(builder).map_err(AuthApiError::internal)?;
        Ok((json(&options.public_key)?, json(&state)?))
    }

    /// Checks the proof of a key.
    ///
    /// # Errors
    /// The answer is not one, not to this question, or not by this key; or its counter went back (a copy).
    pub(crate) fn finish_authentication(
        &self,
        answer: &Assertion,
        state: Value,
        stored: &StoredCredential,
    ) -> Result<Asserted, CeremonyError> {
        let mut state: AuthenticationState =
            serde_json::from_value(state).map_err(|_| CeremonyError::Unreadable)?;
        // As it is now, not as it was when the question was put: the counter counts.
        state.set_allowed_credentials(vec![stored.credential().ok_or(CeremonyError::Unreadable)?]);
        let result = self.core.authenticate_credential(&answer.0, &state)?;
        Ok(Asserted { sign_count: result.counter(), backup_state: result.backup_state() })
    }
}

/// A page's answer with the proof of a key.
pub(crate) struct Assertion(PublicKeyCredential);

impl Assertion {
    /// # Errors
    /// [`CeremonyError::Unreadable`].
    pub(crate) fn read(answer: &Value) -> Result<Self, CeremonyError> {
        serde_json::from_value(answer.clone()).map(Self).map_err(|_| CeremonyError::Unreadable)
    }

    /// Which key it is by.
    pub(crate) fn credential_id(&self) -> &[u8] {
        self.0.raw_id.as_slice()
    }

    /// The account that the authenticator says the key is of: its id as text, or as 16 bytes. `Err` if it is neither.
    pub(crate) fn user(&self) -> Result<Option<Uuid>, CeremonyError> {
        let Some(handle) = &self.0.response.user_handle else { return Ok(None) };
        let handle = handle.as_slice();
        let id = std::str::from_utf8(handle).ok().and_then(|text| Uuid::parse_str(text).ok());
        id.or_else(|| Uuid::from_slice(handle).ok()).map(Some).ok_or(CeremonyError::Unreadable)
    }
}

/// Why an answer of an authenticator is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CeremonyError {
    #[error("the answer is not that of an authenticator")]
    Unreadable,
    #[error("the answer does not verify: {0:?}")]
    Refused(#[from] WebauthnError),
}

impl StoredCredential {
    fn credential(&self) -> Option<Credential> {
        let key: Cbor = serde_cbor_2::from_slice(&self.public_key).ok()?;
        Some(Credential {
            cred_id: self.id.clone(),
            cred: COSEKey::try_from(&key).ok()?,
            counter: self.authenticator.sign_count,
            transports: read_transports(&self.transport),
            user_verified: self.flags.user_verified,
            backup_eligible: self.flags.backup_eligible,
            backup_state: self.flags.backup_state,
            registration_policy: UserVerificationPolicy::Preferred,
            extensions: RegisteredExtensions::none(),
            attestation: ParsedAttestation {
                data: ParsedAttestationData::None,
                metadata: AttestationMetadata::None,
            },
            attestation_format: AttestationFormat::None,
        })
    }

    /// The model of the authenticator, if it tells.
    pub(crate) fn aaguid(&self) -> Option<Uuid> {
        Uuid::from_slice(&self.authenticator.aaguid).ok().filter(|id| !id.is_nil())
    }
}

impl From<&Passkey> for StoredCredential {
    fn from(passkey: &Passkey) -> Self {
        Self {
            id: passkey.credential_id.clone(),
            public_key: passkey.public_key.clone(),
            attestation_type: "none".to_owned(),
            transport: passkey.transports.clone(),
            flags: Flags {
                user_present: true,
                // The table does not say; nobody is asked for more than when they registered.
                user_verified: false,
                backup_eligible: passkey.backup_eligible,
                backup_state: passkey.backed_up,
            },
            authenticator: Authenticator {
                sign_count: u32::try_from(passkey.sign_count).unwrap_or(u32::MAX),
                ..Authenticator::default()
            },
        }
    }
}

/// A name for a new passkey: the product that keeps it, where its model is known.
pub(crate) fn friendly_name(aaguid: Option<Uuid>) -> &'static str {
    // Model ids that the makers have published.
    const KNOWN: [(&str, &str); 9] = [
        ("fbfc3007-154e-4ecc-8c0b-6e020557d7bd", "iCloud Keychain"),
        ("ea9b8d66-4d01-1d21-3ce4-b6b48cb575d4", "Google Password Manager"),
        ("adce0002-35bc-c60a-648b-0b25f1f05503", "Chrome on Mac"),
        ("08987058-cadc-4b81-b6e1-30de50dcbe96", "Windows Hello"),
        ("9ddd1817-af5a-4672-a2b9-3e3dd95000a9", "Windows Hello"),
        ("6028b017-b1d4-4c02-b4b3-afcdafc96bb2", "Windows Hello"),
        ("bada5566-a7aa-401f-bd96-45619a55120d", "1Password"),
        ("d548826e-79b4-db40-a3d8-11116f7e8349", "Bitwarden"),
        ("531126d6-e717-415c-9320-3d9aa6981239", "Dashlane"),
    ];
    let Some(aaguid) = aaguid.map(|id| id.to_string()) else { return "Passkey" };
    KNOWN.iter().find(|(id, _)| *id == aaguid).map_or("Passkey", |(_, name)| name)
}

fn origin(site: &Url) -> Option<Url> {
    site.has_host().then(|| site.join("/").ok()).flatten()
}

fn json(value: &impl Serialize) -> Result<Value, AuthApiError> {
    serde_json::to_value(value).map_err(AuthApiError::internal)
}

fn transports(transports: Option<&[AuthenticatorTransport]>) -> Vec<String> {
    let name = |transport| serde_json::to_value(transport).ok()?.as_str().map(str::to_owned);
    transports.unwrap_or_default().iter().filter_map(name).collect()
}

fn read_transports(names: &[String]) -> Option<Vec<AuthenticatorTransport>> {
    let read: Vec<_> =
        names.iter().filter_map(|name| serde_json::from_value(Value::String(name.clone())).ok()).collect();
    (!read.is_empty()).then_some(read)
}

/// A key as CBOR, with the labels of RFC 9053 §7.
fn cose(key: &COSEKey) -> Option<Vec<u8>> {
    let algorithm = Cbor::Integer(key.type_ as i128);
    let parts: Vec<(i128, Cbor)> = match &key.key {
        COSEKeyType::EC_EC2(ec) => {
            let curve = match ec.curve {
                ECDSACurve::SECP256R1 => 1,
                ECDSACurve::SECP384R1 => 2,
                ECDSACurve::SECP521R1 => 3,
            };
            vec![
                (1, Cbor::Integer(2)),
                (-1, Cbor::Integer(curve)),
                (-2, Cbor::Bytes(ec.x.clone())),
                (-3, Cbor::Bytes(ec.y.clone())),
            ]
        }
        COSEKeyType::EC_OKP(okp) => {
            let curve = match okp.curve {
                EDDSACurve::ED25519 => 6,
                EDDSACurve::ED448 => 7,
            };
            vec![(1, Cbor::Integer(1)), (-1, Cbor::Integer(curve)), (-2, Cbor::Bytes(okp.x.clone()))]
        }
        COSEKeyType::RSA(rsa) => {
            vec![(1, Cbor::Integer(3)), (-1, Cbor::Bytes(rsa.n.clone())), (-2, Cbor::Bytes(rsa.e.to_vec()))]
        }
    };
    let mut map: BTreeMap<_, _> =
        parts.into_iter().map(|(label, value)| (Cbor::Integer(label), value)).collect();
    map.insert(Cbor::Integer(3), algorithm);
    serde_cbor_2::to_vec(&Cbor::Map(map)).ok()
}

/// The authenticator's model id, in the authenticator data (WebAuthn §6.1) of an attestation object.
fn aaguid(attestation_object: &[u8]) -> Option<[u8; 16]> {
    let Cbor::Map(object) = serde_cbor_2::from_slice(attestation_object).ok()? else { return None };
    let Cbor::Bytes(data) = object.get(&Cbor::Text("authData".to_owned()))? else { return None };
    // Hash of our id, flags, counter.
    data.get(32 + 1 + 4..32 + 1 + 4 + 16)?.try_into().ok()
}

/// Bytes as Go's JSON has them.
mod base64_text {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{Engine as _, STANDARD};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = Option::<String>::deserialize(from)?.unwrap_or_default();
        STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}

fn or_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn credentials_of_supabase_projects_are_read_and_written_alike() {
        let stored = json!({
            "id": "AQID", "publicKey": "pQEC", "attestationType": "none", "attestationFormat": "none",
            "transport": null,
            "flags": { "userPresent": true, "userVerified": true, "backupEligible": true, "backupState": false },
            "authenticator": { "AAGUID": "+/wwBxVOTsyMC24CBVfXvQ==", "signCount": 7, "cloneWarning": false, "attachment": "" },
            "attestation": { "clientDataJSON": null },
        });
        let credential: StoredCredential = serde_json::from_value(stored).unwrap();
        assert_eq!((credential.id.as_slice(), credential.authenticator.sign_count), (&[1u8, 2, 3][..], 7));
        assert!(credential.flags.user_verified && !credential.flags.backup_state);
        assert_eq!(friendly_name(credential.aaguid()), "iCloud Keychain");
        let written = serde_json::to_value(&credential).unwrap();
        assert_eq!(serde_json::from_value::<StoredCredential>(written).unwrap(), credential);
    }

    #[test]
    fn keys_survive_the_way_to_the_table_and_back() {
        // The public key of RFC 7515 §A.3.
        let point = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap();
        let key = Cbor::Map(BTreeMap::from([
            (Cbor::Integer(1), Cbor::Integer(2)),
            (Cbor::Integer(3), Cbor::Integer(-7)),
            (Cbor::Integer(-1), Cbor::Integer(1)),
            (Cbor::Integer(-2), Cbor::Bytes(point("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"))),
            (Cbor::Integer(-3), Cbor::Bytes(point("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"))),
        ]));
        let key = COSEKey::try_from(&key).unwrap();
        let written: Cbor = serde_cbor_2::from_slice(&cose(&key).unwrap()).unwrap();
        assert_eq!(COSEKey::try_from(&written).unwrap(), key);
    }

    #[test]
    fn unknown_models_have_a_plain_name() {
        assert_eq!(friendly_name(None), "Passkey");
        assert_eq!(friendly_name(Some(Uuid::max())), "Passkey");
    }
}
