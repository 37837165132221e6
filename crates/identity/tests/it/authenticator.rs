//! A software authenticator: makes keys and signs as WebAuthn Level 2 says, without a browser.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_cbor_2::Value as Cbor;
use serde_json::{Value, json};

const USER_PRESENT: u8 = 0x01;
const USER_VERIFIED: u8 = 0x04;
const ATTESTED: u8 = 0x40;

/// One key of one authenticator, in a browser on one page.
pub(crate) struct Authenticator {
    key: EcdsaKeyPair,
    id: [u8; 16],
    pub(crate) counter: u32,
    pub(crate) origin: String,
    user_handle: String,
}

impl Authenticator {
    pub(crate) fn new() -> Self {
        Self {
            key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap(),
            id: rand::random(),
            counter: 0,
            origin: "http://localhost:3000".into(),
            user_handle: String::new(),
        }
    }

    /// `navigator.credentials.create({ publicKey: options })`, as `toJSON()` has it.
    pub(crate) fn create(&mut self, options: &Value) -> Value {
        self.user_handle = options["user"]["id"].as_str().unwrap().to_owned();
        let client_data = self.client_data("webauthn.create", options);
        let data = self.data(options["rp"]["id"].as_str().unwrap(), true);
        let attestation = Cbor::Map(BTreeMap::from([
            (Cbor::Text("fmt".into()), Cbor::Text("none".into())),
            (Cbor::Text("attStmt".into()), Cbor::Map(BTreeMap::new())),
            (Cbor::Text("authData".into()), Cbor::Bytes(data)),
        ]));
        json!({
            "id": self.id(), "rawId": self.id(), "type": "public-key",
            "authenticatorAttachment": "platform", "clientExtensionResults": {},
            "response": {
                "clientDataJSON": URL_SAFE_NO_PAD.encode(client_data),
                "attestationObject": URL_SAFE_NO_PAD.encode(serde_cbor_2::to_vec(&attestation).unwrap()),
                "transports": ["internal"],
            },
        })
    }

    /// `navigator.credentials.get({ publicKey: options })`.
    pub(crate) fn get(&mut self, options: &Value) -> Value {
        self.counter += 1;
        let client_data = self.client_data("webauthn.get", options);
        let data = self.data(options["rpId"].as_str().unwrap(), false);
        let signed = [&data[..], digest(&SHA256, client_data.as_bytes()).as_ref()].concat();
        let signature = self.key.sign(&SystemRandom::new(), &signed).unwrap();
        json!({
            "id": self.id(), "rawId": self.id(), "type": "public-key", "clientExtensionResults": {},
            "response": {
                "clientDataJSON": URL_SAFE_NO_PAD.encode(client_data),
                "authenticatorData": URL_SAFE_NO_PAD.encode(data),
                "signature": URL_SAFE_NO_PAD.encode(signature.as_ref()),
                "userHandle": self.user_handle,
            },
        })
    }

    fn id(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.id)
    }

    fn client_data(&self, kind: &str, options: &Value) -> String {
        json!({ "type": kind, "challenge": options["challenge"], "origin": self.origin, "crossOrigin": false })
            .to_string()
    }

    /// Authenticator data (§6.1).
    fn data(&self, rp_id: &str, attested: bool) -> Vec<u8> {
        let mut data = digest(&SHA256, rp_id.as_bytes()).as_ref().to_vec();
        data.push(USER_PRESENT | USER_VERIFIED | if attested { ATTESTED } else { 0 });
        data.extend(self.counter.to_be_bytes());
        if attested {
            // iCloud Keychain's model id, so that the passkey gets a name.
            data.extend(uuid::uuid!("fbfc3007-154e-4ecc-8c0b-6e020557d7bd").as_bytes());
            data.extend(16u16.to_be_bytes());
            data.extend(self.id);
            let point = self.key.public_key().as_ref();
            let key = BTreeMap::from([
                (Cbor::Integer(1), Cbor::Integer(2)),
                (Cbor::Integer(3), Cbor::Integer(-7)),
                (Cbor::Integer(-1), Cbor::Integer(1)),
                (Cbor::Integer(-2), Cbor::Bytes(point[1..33].to_vec())),
                (Cbor::Integer(-3), Cbor::Bytes(point[33..].to_vec())),
            ]);
            data.extend(serde_cbor_2::to_vec(&Cbor::Map(key)).unwrap());
        }
        data
    }
}
