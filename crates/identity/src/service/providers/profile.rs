//! What providers say about a person, in the shape that Supabase Auth stores as `identity_data`.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::id_tokens::text;

/// An e-mail address that a provider knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProviderEmail {
    /// In lower case.
    pub(crate) address: String,
    /// Whether the provider made sure that it is the person's.
    pub(crate) verified: bool,
    pub(crate) primary: bool,
}

/// A person as a provider describes them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Profile {
    /// Their id there.
    pub(crate) subject: String,
    pub(crate) emails: Vec<ProviderEmail>,
    /// `identity_data`.
    pub(crate) data: Map<String, Value>,
}

/// Most addresses of one person that are looked at.
const MOST_EMAILS: usize = 20;

impl Profile {
    /// With the address that stands for the person: the primary one, else the last.
    fn new(subject: String, emails: Vec<ProviderEmail>, entries: &[(&str, Value)]) -> Self {
        let mut emails: Vec<_> = emails
            .into_iter()
            .filter(|email| !email.address.is_empty())
            .map(|email| ProviderEmail { address: email.address.to_lowercase(), ..email })
            .collect();
        if let Some(primary) = emails.iter().position(|email| email.primary) {
            emails.swap(0, primary);
        }
        emails.truncate(MOST_EMAILS);
        let mut data = Map::new();
        for (name, value) in entries {
            let empty = match value {
                Value::Null => true,
                Value::String(text) => text.is_empty(),
                Value::Object(map) => map.is_empty(),
                _ => false,
            };
            if !empty {
                data.insert((*name).to_owned(), value.clone());
            }
        }
        let standing = emails.iter().find(|email| email.primary).or(emails.last());
        if let Some(email) = standing {
            data.insert("email".into(), json!(email.address));
        }
        data.insert("email_verified".into(), json!(standing.is_some_and(|email| email.verified)));
        data.insert("phone_verified".into(), json!(false));
        data.insert("sub".into(), json!(subject));
        data.insert("provider_id".into(), json!(subject));
        Self { subject, emails, data }
    }

    /// Whether the address that stands for the person is verified.
    pub(crate) fn email_verified(&self) -> bool {
        self.data.get("email_verified").and_then(Value::as_bool).unwrap_or_default()
    }

    /// Adds the name that Apple sends beside the token, on the first sign-in only.
    pub(crate) fn name_from_apple(&mut self, user: &str) {
        #[derive(Deserialize)]
        struct User {
            name: Name,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        #[derive(Default)]
        struct Name {
            first_name: String,
            last_name: String,
        }
        let Ok(User { name }) = serde_json::from_str::<User>(user) else { return };
        let name = format!("{} {}", name.first_name, name.last_name);
        // The browser carries it, so anybody may have written it.
        let name: String =
            name.trim().chars().filter(|character| !character.is_control()).take(200).collect();
        if !name.is_empty() {
            self.data.insert("name".into(), json!(name));
            self.data.insert("full_name".into(), json!(name));
        }
    }
}

/// True, `"true"`, `"1"` or 1: issuers do not agree on it.
fn truth(value: Option<&Value>) -> Option<bool> {
    match value? {
        Value::Bool(yes) => Some(*yes),
        Value::String(text) => Some(text.eq_ignore_ascii_case("true") || text == "1"),
        Value::Number(number) => Some(number.as_i64() == Some(1)),
        _ => None,
    }
}

fn primary(claims: &Map<String, Value>, verified: bool) -> Vec<ProviderEmail> {
    vec![ProviderEmail { address: text(claims, "email").to_owned(), verified, primary: true }]
}

/// From the claims of an OpenID Connect issuer.
pub(super) fn of_oidc(claims: &Map<String, Value>) -> Profile {
    let verified = truth(claims.get("email_verified")).unwrap_or(false);
    let copy = |name| json!(text(claims, name));
    let mut entries = vec![
        ("iss", copy("iss")),
        ("full_name", copy("name")),
        ("avatar_url", copy("picture")),
        ("user_name", copy("preferred_username")),
    ];
    for name in [
        "name",
        "family_name",
        "given_name",
        "middle_name",
        "nickname",
        "preferred_username",
        "profile",
        "picture",
        "website",
        "gender",
        "birthdate",
        "zoneinfo",
        "locale",
    ] {
        entries.push((name, copy(name)));
    }
    Profile::new(text(claims, "sub").to_owned(), primary(claims, verified), &entries)
}

/// From an ID token of Google.
pub(super) fn of_google(claims: &Map<String, Value>) -> Profile {
    let verified = truth(claims.get("email_verified")).unwrap_or(false);
    let copy = |name| json!(text(claims, name));
    let mut custom = Map::new();
    if !text(claims, "hd").is_empty() {
        custom.insert("hd".into(), copy("hd"));
    }
    let entries = [
        ("iss", copy("iss")),
        ("name", copy("name")),
        ("full_name", copy("name")),
        ("picture", copy("picture")),
        ("avatar_url", copy("picture")),
        ("custom_claims", Value::Object(custom)),
    ];
    Profile::new(text(claims, "sub").to_owned(), primary(claims, verified), &entries)
}

/// From an ID token of Apple, whose addresses (also its relays) are verified unless it says otherwise.
pub(super) fn of_apple(claims: &Map<String, Value>) -> Profile {
    let verified = truth(claims.get("email_verified")).unwrap_or(true);
    let mut custom = Map::new();
    if let Some(private) = truth(claims.get("is_private_email")) {
        custom.insert("is_private_email".into(), json!(private));
    }
    for name in ["auth_time", "transfer_sub"] {
        if let Some(value) = claims.get(name).filter(|value| !value.is_null()) {
            custom.insert(name.into(), value.clone());
        }
    }
    let entries = [("iss", json!(text(claims, "iss"))), ("custom_claims", Value::Object(custom))];
    Profile::new(text(claims, "sub").to_owned(), primary(claims, verified), &entries)
}

/// Claims of Azure's that say nothing about the person, or are stored under their own names.
const NOT_CUSTOM: &[&str] = &[
    "aud",
    "iss",
    "iat",
    "nbf",
    "exp",
    "c_hash",
    "at_hash",
    "aio",
    "nonce",
    "rh",
    "uti",
    "jti",
    "ver",
    "sub",
    "name",
    "preferred_username",
];

/// From an ID token of Azure. Without the optional claim `xms_edov` an address counts as verified, because Azure
/// leaves unverified ones out of tokens of applications that any tenant may use.
pub(super) fn of_azure(claims: &Map<String, Value>) -> Profile {
    let verified = claims.get("xms_edov").is_none_or(|edov| truth(Some(edov)).unwrap_or(false));
    let custom: Map<String, Value> = claims
        .iter()
        .filter(|(name, _)| !NOT_CUSTOM.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let copy = |name| json!(text(claims, name));
    let entries = [
        ("iss", copy("iss")),
        ("full_name", copy("name")),
        ("name", copy("name")),
        ("preferred_username", copy("preferred_username")),
        ("custom_claims", Value::Object(custom)),
    ];
    Profile::new(text(claims, "sub").to_owned(), primary(claims, verified), &entries)
}

/// `GET /user` of GitHub's API.
#[derive(Debug, Deserialize)]
pub(super) struct GitHubUser {
    id: u64,
    login: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    avatar_url: Option<String>,
}

/// An entry of `GET /user/emails` of GitHub's API.
#[derive(Debug, Deserialize)]
pub(super) struct GitHubEmail {
    email: String,
    primary: bool,
    verified: bool,
}

/// From GitHub's API.
pub(super) fn of_github(issuer: &str, user: GitHubUser, emails: Vec<GitHubEmail>) -> Profile {
    let emails = emails
        .into_iter()
        .map(|email| ProviderEmail { address: email.email, verified: email.verified, primary: email.primary })
        .collect();
    let entries = [
        ("iss", json!(issuer)),
        ("name", json!(user.name)),
        ("full_name", json!(user.name)),
        ("preferred_username", json!(user.login)),
        ("user_name", json!(user.login)),
        ("avatar_url", json!(user.avatar_url)),
    ];
    Profile::new(user.id.to_string(), emails, &entries)
}

/// `GET /users/@me` of Discord's API.
#[derive(Debug, Deserialize)]
pub(super) struct DiscordUser {
    id: String,
    username: String,
    #[serde(default)]
    discriminator: Option<String>,
    #[serde(default)]
    global_name: Option<String>,
    #[serde(default)]
    avatar: Option<String>,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    verified: bool,
}

/// From Discord's API.
pub(super) fn of_discord(issuer: &str, user: DiscordUser) -> Profile {
    let discriminator = user.discriminator.as_deref().unwrap_or("0");
    let avatar = match user.avatar.as_deref().filter(|avatar| !avatar.is_empty()) {
        Some(avatar) => {
            let kind = if avatar.starts_with("a_") { "gif" } else { "png" };
            format!("https://cdn.discordapp.com/avatars/{}/{avatar}.{kind}", user.id)
        }
        None => {
            // Accounts with new user names have no discriminator; theirs comes from the id (a snowflake).
            let number = match discriminator.parse::<u64>() {
                Ok(number) if number > 0 => number % 5,
                _ => user.id.parse::<u64>().map_or(0, |id| (id >> 22) % 6),
            };
            format!("https://cdn.discordapp.com/embed/avatars/{number}.png")
        }
    };
    let emails = vec![ProviderEmail {
        address: user.email.unwrap_or_default(),
        verified: user.verified,
        primary: true,
    }];
    let entries = [
        ("iss", json!(issuer)),
        ("name", json!(format!("{}#{discriminator}", user.username))),
        ("full_name", json!(user.username)),
        ("picture", json!(avatar)),
        ("avatar_url", json!(avatar)),
        ("custom_claims", json!({ "global_name": user.global_name })),
    ];
    Profile::new(user.id, emails, &entries)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            _ => panic!("an object"),
        }
    }

    #[test]
    fn google_says_who_and_which_domain() {
        let profile = of_google(&object(json!({
            "iss": "https://accounts.google.com", "sub": "7", "email": "Ada@Example.com", "email_verified": true,
            "name": "Ada", "picture": "https://example.com/a.png", "hd": "example.com", "aud": "x", "exp": 1
        })));
        assert_eq!(
            Value::Object(profile.data.clone()),
            json!({
                "iss": "https://accounts.google.com", "sub": "7", "provider_id": "7", "email": "ada@example.com",
                "email_verified": true, "phone_verified": false, "name": "Ada", "full_name": "Ada",
                "picture": "https://example.com/a.png", "avatar_url": "https://example.com/a.png",
                "custom_claims": {"hd": "example.com"}
            })
        );
        assert!(profile.email_verified());
    }

    #[rstest]
    #[case::boolean(json!(true), true)]
    #[case::text(json!("true"), true)]
    #[case::unverified(json!(false), false)]
    #[case::unverified_text(json!("false"), false)]
    #[case::missing(Value::Null, false)]
    fn oidc_addresses_are_verified_when_the_issuer_says_so(#[case] claim: Value, #[case] verified: bool) {
        let profile = of_oidc(&object(json!({"sub": "1", "email": "a@b.c", "email_verified": claim})));
        assert_eq!(profile.email_verified(), verified);
        assert_eq!(profile.emails[0].verified, verified);
    }

    #[rstest]
    #[case::not_configured(json!({}), true)]
    #[case::verified(json!({"xms_edov": true}), true)]
    #[case::verified_text(json!({"xms_edov": "1"}), true)]
    #[case::not_verified(json!({"xms_edov": false}), false)]
    #[case::odd(json!({"xms_edov": {}}), false)]
    fn azure_addresses_are_verified_by_domain(#[case] claims: Value, #[case] verified: bool) {
        let mut all = object(json!({"sub": "1", "email": "a@b.c", "tid": "t", "name": "A"}));
        all.extend(object(claims));
        let profile = of_azure(&all);
        assert_eq!(profile.email_verified(), verified);
        assert_eq!(profile.data["custom_claims"]["tid"], "t");
        assert!(profile.data["custom_claims"].get("name").is_none());
    }

    #[test]
    fn apple_sends_the_name_once_and_beside_the_token() {
        let claims = json!({"sub": "9", "email": "x@privaterelay.appleid.com", "is_private_email": "true"});
        let mut profile = of_apple(&object(claims));
        assert!(profile.email_verified());
        assert_eq!(profile.data["custom_claims"], json!({"is_private_email": true}));
        profile.name_from_apple(r#"{"name":{"firstName":"Ada","lastName":"Lovelace"},"email":"evil@x.y"}"#);
        assert_eq!(profile.data["full_name"], "Ada Lovelace");
        assert_eq!(profile.data["email"], "x@privaterelay.appleid.com");
        profile.name_from_apple("not json");
        assert_eq!(profile.data["name"], "Ada Lovelace");
    }

    #[test]
    fn github_prefers_the_primary_address() {
        let user = serde_json::from_value(
            json!({"id": 42, "login": "ada", "name": null, "avatar_url": "https://a"}),
        );
        let emails = serde_json::from_value(json!([
            {"email": "old@example.com", "primary": false, "verified": true},
            {"email": "Ada@example.com", "primary": true, "verified": false}
        ]));
        let profile = of_github("https://api.github.com", user.unwrap(), emails.unwrap());
        assert_eq!(profile.subject, "42");
        assert_eq!(profile.data["email"], "ada@example.com");
        assert_eq!(profile.data["email_verified"], false);
        assert_eq!(profile.data["user_name"], "ada");
        assert!(profile.data.get("name").is_none());
        assert_eq!(profile.emails.len(), 2);
    }

    #[rstest]
    #[case(json!({"avatar": "abc"}), "https://cdn.discordapp.com/avatars/80351110224678912/abc.png")]
    #[case(json!({"avatar": "a_bc"}), "https://cdn.discordapp.com/avatars/80351110224678912/a_bc.gif")]
    #[case(json!({"discriminator": "1337"}), "https://cdn.discordapp.com/embed/avatars/2.png")]
    #[case(json!({"discriminator": "0"}), "https://cdn.discordapp.com/embed/avatars/5.png")]
    fn discord_avatars(#[case] change: Value, #[case] expected: &str) {
        let mut user = object(json!({"id": "80351110224678912", "username": "nelly"}));
        user.extend(object(change));
        let profile =
            of_discord("https://discord.com/api", serde_json::from_value(Value::Object(user)).unwrap());
        assert_eq!(profile.data["avatar_url"], expected);
        assert!(profile.emails.is_empty());
    }
}
