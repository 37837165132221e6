//! Sign-in through other sites, against the strict emulator of them.

use longhouse_emulators::oidc::{Algorithm, Client, Options, Person, Secret, Server};
use longhouse_identity::service::{AuthOptions, ProviderOptions};
use reqwest::Method;
use rstest::rstest;
use secrecy::SecretString;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;
use uuid::Uuid;

use crate::harness::{Answer, TestAuth};

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const APP: &str = "http://localhost:3000/welcome";

/// An auth service and the sites that its people come from.
struct World {
    auth: TestAuth,
    sites: Server,
}

impl World {
    async fn with(people: Vec<Person>, change: impl FnOnce(&mut AuthOptions)) -> Self {
        Self::of(Options { people, ..Options::default() }, change).await
    }

    /// The callback address is not known before the service runs, so clients register one that never changes and the
    /// browser (that is, [`World::arrive`]) takes people from there to the service.
    async fn of(options: Options, change: impl FnOnce(&mut AuthOptions)) -> Self {
        let clients = vec![Client::new("app", "s3cret &+%", CALLBACK), Client::new("other", "x", CALLBACK)];
        let clients = if options.clients.is_empty() { clients } else { options.clients.clone() };
        let sites = Server::start(Options { clients, ..options }).await.unwrap();
        let auth = TestAuth::with(|options| {
            for (name, url) in [
                ("house", sites.issuer()),
                ("azure", sites.azure("common")),
                ("github", sites.url()),
                ("discord", sites.url()),
                ("google", sites.issuer()),
            ] {
                options.providers.insert(name.into(), provider(url));
            }
            change(options);
        })
        .await;
        Self { auth, sites }
    }

    /// `GET /authorize`; returns where the browser is sent.
    async fn authorize(&self, query: &str) -> Url {
        let answer = self.auth.get(&format!("/authorize?redirect_to={APP}&{query}")).await;
        assert_eq!(answer.status, 302, "{}", answer.text);
        answer.location()
    }

    /// Follows to the site, which approves at once, and comes back with what it sends.
    async fn arrive(&self, mut site: Url, hint: &str) -> Answer {
        site.query_pairs_mut().append_pair("login_hint", hint);
        let back = visit(&site).await;
        self.auth.get(&format!("/callback?{}", back.query().unwrap())).await
    }

    /// The whole round trip.
    async fn sign_in(&self, provider: &str, hint: &str) -> Answer {
        let site = self.authorize(&format!("provider={provider}")).await;
        self.arrive(site, hint).await
    }

    async fn count(&self, sql: &str) -> i64 {
        self.auth.sql.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// The account that an implicit sign-in's fragment belongs to, as stored.
    async fn user(&self, answer: &Answer) -> Value {
        let token = answer.in_fragment("access_token").unwrap_or_else(|| panic!("no session: {answer:?}"));
        let claims = self.auth.claims(&json!({ "access_token": token }));
        let id: Uuid = claims["sub"].as_str().unwrap().parse().unwrap();
        let sql = "select jsonb_build_object('id', u.id, 'email', u.email, 'app', u.raw_app_meta_data,
            'data', u.raw_user_meta_data, 'confirmed', u.email_confirmed_at is not null,
            'password', coalesce(u.encrypted_password, ''), 'amr', $2::jsonb,
            'identities', (select jsonb_agg(to_jsonb(i) order by i.created_at) from auth.identities i where i.user_id = u.id))
            from auth.users u where u.id = $1";
        let amr = claims["amr"].clone();
        self.auth.sql.query_one(sql, &[&id, &amr]).await.unwrap().get(0)
    }
}

const CALLBACK: &str = "http://service.test/auth/v1/callback";

fn provider(url: Url) -> ProviderOptions {
    ProviderOptions {
        client_ids: vec!["app".into(), "app.mobile".into()],
        secret: Some(SecretString::from("s3cret &+%")),
        url: Some(url),
        redirect_uri: Some(CALLBACK.parse().unwrap()),
        email_optional: false,
        skip_nonce_check: false,
    }
}

fn ada() -> Person {
    Person::new("1001", "Ada Lovelace", "ada@example.com")
}

/// What a browser does with an address of a site: returns where it is sent.
async fn visit(url: &Url) -> Url {
    let client =
        reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let response = client.get(url.clone()).send().await.unwrap();
    let location = response.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
    let text = response.text().await.unwrap();
    location.unwrap_or_else(|| panic!("no redirect from {url}: {text}")).parse().unwrap()
}

fn parameter(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

#[tokio::test]
async fn the_implicit_flow_signs_in_and_describes_the_person() {
    let world = World::with(vec![ada()], |_| ()).await;
    let site =
        world.authorize("provider=house&scopes=offline_access&prompt=consent&state=mine&nonce=mine").await;
    assert!(site.as_str().starts_with(world.sites.issuer().as_str()));
    assert_eq!(parameter(&site, "scope").unwrap(), "openid email profile offline_access");
    assert_eq!(parameter(&site, "prompt").unwrap(), "consent", "the page's own parameters are passed on");
    assert_eq!(parameter(&site, "code_challenge_method").unwrap(), "S256");
    assert!(Uuid::parse_str(&parameter(&site, "state").unwrap()).is_ok(), "ours, not the page's");
    assert_ne!(parameter(&site, "nonce").unwrap(), "mine");
    assert!(parameter(&site, "redirect_to").is_none());

    let answer = world.arrive(site, "ada@example.com").await;
    assert_eq!(answer.status, 302);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(answer.location().as_str().starts_with(&format!("{APP}#")), "{answer:?}");
    assert_eq!(answer.in_fragment("token_type").unwrap(), "bearer");
    assert!(answer.in_fragment("refresh_token").is_some());
    assert!(answer.in_fragment("provider_token").unwrap().starts_with("access-"));
    assert!(answer.in_fragment("provider_refresh_token").unwrap().starts_with("refresh-"));
    let user = world.user(&answer).await;
    assert_eq!(user["email"], "ada@example.com");
    assert_eq!(user["confirmed"], true);
    assert_eq!(user["app"], json!({ "provider": "house", "providers": ["house"] }));
    assert_eq!(user["data"]["full_name"], "Ada Lovelace");
    assert_eq!(user["amr"][0]["method"], "oauth");
    let identity = &user["identities"][0];
    assert_eq!(
        (identity["provider"].as_str(), identity["provider_id"].as_str()),
        (Some("house"), Some("1001"))
    );
    assert_eq!(
        identity["identity_data"],
        json!({
            "iss": world.sites.issuer().as_str(), "sub": "1001", "provider_id": "1001",
            "name": "Ada Lovelace", "full_name": "Ada Lovelace", "email": "ada@example.com",
            "email_verified": true, "phone_verified": false,
            "preferred_username": "ada", "user_name": "ada",
            "picture": "https://pictures.example.com/1001.png", "avatar_url": "https://pictures.example.com/1001.png",
        })
    );
    assert_eq!(world.count("select count(*) from auth.flow_state").await, 0, "nothing is left over");
    assert_eq!(world.count("select count(*) from auth.oauth_client_states").await, 0);

    let again = world.user(&world.sign_in("house", "ada@example.com").await).await;
    assert_eq!(again["id"], user["id"]);
    assert_eq!(world.count("select count(*) from auth.identities").await, 1);
}

#[tokio::test]
async fn pkce_hands_out_a_code_and_keeps_the_provider_tokens() {
    let world = World::with(vec![ada()], |_| ()).await;
    let site = world
        .authorize(&format!(
            "provider=house&code_challenge={CHALLENGE}&code_challenge_method=s256&access_type=offline"
        ))
        .await;
    let answer = world.arrive(site, "ada@example.com").await;
    let location = answer.location();
    assert!(location.fragment().is_none(), "no tokens in the address: {location}");
    let code = answer.in_query("code").unwrap();
    let body = json!({ "auth_code": code, "code_verifier": VERIFIER });
    let session = world.auth.post("/token?grant_type=pkce", body.clone()).await;
    assert_eq!(session.status, 200, "{}", session.text);
    assert!(session.text_at("/provider_token").starts_with("access-"));
    assert!(session.text_at("/provider_refresh_token").starts_with("refresh-"));
    assert_eq!(session.text_at("/user/email"), "ada@example.com");
    let again = world.auth.post("/token?grant_type=pkce", body).await;
    assert_eq!(again.status, 404, "a code is valid once: {}", again.text);
}

#[rstest]
#[case::azure("azure", "1001", json!({"email_verified": true, "full_name": "Ada Lovelace", "preferred_username": "ada"}))]
#[case::github("github", "1001", json!({"email_verified": true, "user_name": "ada", "avatar_url": "https://avatars.example.com/u/1001"}))]
#[case::discord("discord", "1001", json!({"email_verified": true, "name": "ada#0", "custom_claims": {"global_name": "Ada Lovelace"}}))]
#[case::google("google", "1001", json!({"email_verified": true, "picture": "https://pictures.example.com/1001.png"}))]
#[tokio::test]
async fn each_site_tells_who_somebody_is(#[case] name: &str, #[case] id: &str, #[case] expected: Value) {
    let world = World::with(vec![ada()], |_| ()).await;
    let user = world.user(&world.sign_in(name, "ada@example.com").await).await;
    assert_eq!(user["email"], "ada@example.com");
    let identity = &user["identities"][0];
    assert_eq!(identity["provider_id"], id);
    for (claim, value) in expected.as_object().unwrap() {
        assert_eq!(identity["identity_data"][claim], *value, "{claim}");
    }
}

#[tokio::test]
async fn apple_posts_a_form_with_the_name_and_wants_a_signed_secret() {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use base64::Engine;

    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let der = base64::engine::general_purpose::STANDARD.encode(pair.to_pkcs8v1().unwrap().as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n");
    let secret = json!({ "team_id": "TEAM", "key_id": "KEY", "private_key": pem }).to_string();
    let client = Client {
        secret: Some(Secret::Apple {
            team_id: "TEAM".into(),
            key_id: "KEY".into(),
            public_key: pair.public_key().as_ref().to_vec(),
        }),
        ..Client::new("app", "", CALLBACK)
    };
    let private = Person::new("001.a", "Ada King Lovelace", "x1@privaterelay.appleid.com");
    let options = Options { clients: vec![client], people: vec![private], ..Options::default() };
    let sites = Server::start(options).await.unwrap();
    let auth = TestAuth::with(|options| {
        let apple = ProviderOptions { secret: Some(secret.into()), ..provider(sites.apple()) };
        options.providers.insert("apple".into(), apple);
    })
    .await;
    let start = auth.get(&format!("/authorize?provider=apple&redirect_to={APP}")).await.location();
    assert_eq!(parameter(&start, "response_mode").unwrap(), "form_post");
    let page = reqwest::get(format!("{start}&login_hint=x1@privaterelay.appleid.com")).await.unwrap();
    let page = page.text().await.unwrap();
    let field = |name: &str| {
        let rest =
            page.split_once(&format!("name=\"{name}\" value=\"")).unwrap_or_else(|| panic!("{page}")).1;
        rest.split('"').next().unwrap().replace("&quot;", "\"")
    };
    let form = [("state", field("state")), ("code", field("code")), ("user", field("user"))];
    let browser = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let answer = browser.post(auth.url("/callback")).form(&form).send().await.unwrap();
    let location = answer.headers()["location"].to_str().unwrap();
    assert!(location.starts_with(&format!("{APP}#access_token=")), "{location}");
    let sql = "select identity_data from auth.identities where provider = 'apple'";
    let data: Value = auth.sql.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(data["full_name"], "Ada King Lovelace");
    assert_eq!(data["custom_claims"]["is_private_email"], true);
    assert_eq!(data["email_verified"], true);
}

#[tokio::test]
async fn the_same_verified_address_links_and_an_unverified_one_does_not() {
    let people = vec![ada(), Person::new("2002", "Mallory", "victim@example.com").unverified()];
    let world = World::with(people, |_| ()).await;
    let first = world.user(&world.sign_in("house", "ada@example.com").await).await;
    let second = world.user(&world.sign_in("github", "ada@example.com").await).await;
    assert_eq!(first["id"], second["id"]);
    assert_eq!(second["app"], json!({ "provider": "house", "providers": ["house", "github"] }));

    let victim = world.auth.signed_up("victim@example.com").await;
    let answer = world.sign_in("house", "victim@example.com").await;
    assert_eq!(answer.in_query("error").unwrap(), "access_denied");
    assert_eq!(answer.in_query("error_code").unwrap(), "provider_email_needs_verification");
    assert_eq!(answer.in_fragment("error_code").unwrap(), "provider_email_needs_verification");
    let sql = "select count(*) from auth.identities where provider = 'house' and user_id = $1";
    let id: Uuid = victim["user"]["id"].as_str().unwrap().parse().unwrap();
    let linked: i64 = world.auth.sql.query_one(sql, &[&id]).await.unwrap().get(0);
    assert_eq!(linked, 0, "nobody gets into an account by claiming its address");
}

#[tokio::test]
async fn an_unverified_address_is_confirmed_by_mail() {
    let world = World::with(vec![ada().unverified()], |_| ()).await;
    let answer = world.sign_in("house", "ada@example.com").await;
    assert_eq!(answer.in_query("error_code").unwrap(), "provider_email_needs_verification");
    let mail = world.auth.last_mail("ada@example.com").await;
    assert_eq!(mail.kind, "confirmation");
    let body = json!({ "type": "signup", "token_hash": mail.token_hash() });
    let confirmed = world.auth.post("/verify", body).await;
    assert_eq!(confirmed.status, 200, "{}", confirmed.text);
    let user = world.user(&world.sign_in("house", "ada@example.com").await).await;
    assert_eq!(user["confirmed"], true);
}

#[tokio::test]
async fn whoever_prepared_an_unconfirmed_account_loses_it_to_the_owner_of_the_address() {
    let world = World::with(vec![ada()], |_| ()).await;
    let body = json!({ "email": "ada@example.com", "password": "attacker's", "data": { "admin": true } });
    assert_eq!(world.auth.post("/signup", body).await.status, 200);
    let user = world.user(&world.sign_in("house", "ada@example.com").await).await;
    assert_eq!(user["password"], "");
    assert_eq!(user["identities"].as_array().unwrap().len(), 1);
    assert!(user["data"].get("admin").is_none());
    assert_eq!(user["app"]["providers"], json!(["house"]));
    let attacker = world.auth.sign_in("ada@example.com", "attacker's").await;
    assert_eq!(attacker.status, 400, "{}", attacker.text);
}

#[tokio::test]
async fn two_first_sign_ins_at_once_make_one_account() {
    let world = World::with(vec![ada()], |_| ()).await;
    let one = world.authorize("provider=house").await;
    let two = world.authorize("provider=github").await;
    let (one, two) = tokio::join!(world.arrive(one, "ada@example.com"), world.arrive(two, "ada@example.com"));
    let (one, two) = (world.user(&one).await, world.user(&two).await);
    assert_eq!(one["id"], two["id"]);
    assert_eq!(world.count("select count(*) from auth.users").await, 1);
}

#[tokio::test]
async fn a_state_is_valid_once_and_only_for_ten_minutes() {
    let world = World::with(vec![ada()], |_| ()).await;
    let mut site = world.authorize("provider=house").await;
    site.query_pairs_mut().append_pair("login_hint", "ada@example.com");
    let back = format!("/callback?{}", visit(&site).await.query().unwrap());
    let (one, two) = tokio::join!(world.auth.get(&back), world.auth.get(&back));
    let sessions =
        [&one, &two].into_iter().filter(|answer| answer.in_fragment("access_token").is_some()).count();
    assert_eq!(sessions, 1, "{one:?} {two:?}");
    assert_eq!(world.count("select count(*) from auth.sessions").await, 1);

    let site = world.authorize("provider=house").await;
    world
        .auth
        .sql
        .execute("update auth.flow_state set created_at = now() - interval '11 minutes'", &[])
        .await
        .unwrap();
    let answer = world.arrive(site, "ada@example.com").await;
    assert_eq!(answer.in_query("error_code").unwrap(), "bad_oauth_state");
    assert_eq!(answer.in_query("error_description").unwrap(), "OAuth state has expired");
}

#[rstest]
#[case("", "bad_oauth_callback")]
#[case("state=not-a-uuid&code=x", "bad_oauth_state")]
#[case("state=2f1c6f0e-0000-4000-8000-000000000000&code=x", "bad_oauth_state")]
#[tokio::test]
async fn a_callback_out_of_nowhere_ends_at_the_site(#[case] query: &str, #[case] code: &str) {
    let auth = TestAuth::start().await;
    let answer = auth.get(&format!("/callback?{query}")).await;
    assert_eq!(answer.status, 303);
    assert_eq!(answer.location().host_str().unwrap(), "localhost");
    assert_eq!(answer.in_query("error").unwrap(), "invalid_request");
    assert_eq!(answer.in_query("error_code").unwrap(), code);
}

#[tokio::test]
async fn the_providers_errors_reach_the_page() {
    let world = World::with(vec![ada()], |_| ()).await;
    let site = world.authorize("provider=house").await;
    let state = parameter(&site, "state").unwrap();
    let answer = world
        .auth
        .get(&format!("/callback?state={state}&error=access_denied&error_description=The+person+said+no"))
        .await;
    assert!(answer.location().as_str().starts_with(APP));
    assert_eq!(answer.in_query("error").unwrap(), "access_denied");
    assert_eq!(answer.in_fragment("error_description").unwrap(), "The person said no");

    let site = world.authorize("provider=house").await;
    let state = parameter(&site, "state").unwrap();
    let answer = world.auth.get(&format!("/callback?state={state}&code=wrong-one")).await;
    assert_eq!(answer.in_query("error").unwrap(), "server_error");
    assert_eq!(answer.in_query("error_description").unwrap(), "Unable to exchange external code: wron");

    let site = world.authorize("provider=house").await;
    let state = parameter(&site, "state").unwrap();
    let answer = world.auth.get(&format!("/callback?state={state}")).await;
    assert_eq!(answer.in_query("error_code").unwrap(), "bad_oauth_callback");
}

#[rstest]
#[case(
    "provider=nobody",
    "validation_failed",
    "Unsupported provider: Provider nobody could not be found or is not enabled"
)]
#[case(
    "provider=house&code_challenge=short&code_challenge_method=s256",
    "validation_failed",
    "code challenge has to be between 43 and 128 characters"
)]
#[case(
    "provider=house&code_challenge_method=s256",
    "validation_failed",
    "PKCE flow requires code_challenge_method and code_challenge"
)]
#[tokio::test]
async fn authorize_refuses(#[case] query: &str, #[case] code: &str, #[case] message: &str) {
    let world = World::with(vec![], |_| ()).await;
    let answer = world.auth.get(&format!("/authorize?{query}")).await;
    assert_eq!((answer.status, answer.code(), answer.text_at("/msg")), (400, code, message));
}

#[tokio::test]
async fn authorize_sends_back_only_to_allowed_addresses_and_can_answer_in_json() {
    let world = World::with(vec![ada()], |_| ()).await;
    let path = "/authorize?provider=house&redirect_to=https://evil.example&skip_http_redirect=true";
    let answer = world.auth.get(path).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let site: Url = answer.text_at("/url").parse().unwrap();
    assert_eq!(world.arrive(site, "ada@example.com").await.location().host_str().unwrap(), "localhost");
}

#[tokio::test]
async fn closed_projects_and_banned_accounts_stay_out() {
    let world = World::with(vec![ada()], |_| ()).await;
    let user = world.user(&world.sign_in("house", "ada@example.com").await).await;
    world
        .auth
        .sql
        .execute("update auth.users set banned_until = now() + interval '1 day'", &[])
        .await
        .unwrap();
    for challenge in ["", "&code_challenge_method=s256&code_challenge="] {
        let challenge = if challenge.is_empty() { String::new() } else { format!("{challenge}{CHALLENGE}") };
        let site = world.authorize(&format!("provider=house{challenge}")).await;
        let answer = world.arrive(site, "ada@example.com").await;
        assert_eq!(answer.in_query("error").unwrap(), "access_denied");
        assert_eq!(answer.in_query("error_code").unwrap(), "user_banned");
    }
    assert!(user["id"].is_string());

    let closed = World::with(vec![ada()], |options| options.disable_signup = true).await;
    let answer = closed.sign_in("house", "ada@example.com").await;
    assert_eq!(answer.in_query("error_code").unwrap(), "signup_disabled");
    assert_eq!(closed.count("select count(*) from auth.users").await, 0);
}

#[tokio::test]
async fn addresses_are_optional_where_the_settings_say_so() {
    let nobody = Person::new("7", "No Mail", "");
    let hinted = vec![nobody.clone()];
    let world = World::with(hinted.clone(), |_| ()).await;
    let answer = world.sign_in("discord", "7").await;
    assert_eq!(
        answer.in_query("error_description").unwrap(),
        "Error getting user email from external provider"
    );

    let world = World::with(hinted, |options| {
        for provider in options.providers.values_mut() {
            provider.email_optional = true;
        }
    })
    .await;
    let user = world.user(&world.sign_in("discord", "7").await).await;
    assert_eq!(user["email"], Value::Null);
    assert_eq!(user["confirmed"], false);
}

#[tokio::test]
async fn user_info_helps_out_where_the_id_token_is_lean() {
    let options = Options { people: vec![ada()], lean_id_tokens: true, ..Options::default() };
    let world = World::of(options, |_| ()).await;
    let user = world.user(&world.sign_in("house", "ada@example.com").await).await;
    assert_eq!(user["email"], "ada@example.com");
    assert_eq!(user["confirmed"], true);
    assert_eq!(world.sites.hits("/plain/userinfo"), 1);
}

fn hashed(nonce: &str) -> String {
    hex::encode(Sha256::digest(nonce))
}

#[rstest]
#[case(Algorithm::Rs256)]
#[case(Algorithm::Es256)]
#[tokio::test]
async fn id_tokens_of_apps_sign_in(#[case] algorithm: Algorithm) {
    let world = World::of(Options { people: vec![ada()], algorithm, ..Options::default() }, |_| ()).await;
    let grant = "/token?grant_type=id_token";
    let token = world.sites.id_token("1001", "app.mobile", Some(&hashed("raw")), Some("access"));
    let body = json!({ "provider": "house", "id_token": token, "nonce": "raw", "access_token": "access" });
    let session = world.auth.post(grant, body).await;
    assert_eq!(session.status, 200, "{}", session.text);
    assert_eq!(session.text_at("/user/email"), "ada@example.com");
    assert_eq!(session.text_at("/user/app_metadata/provider"), "house");

    let by_issuer = world.sites.id_token("1001", "app", None, None);
    let body = json!({ "issuer": world.sites.issuer(), "client_id": "app", "id_token": by_issuer });
    assert_eq!(world.auth.post(grant, body).await.status, 200);
    assert_eq!(world.sites.hits("/jwks.json"), 1, "keys are remembered");
    assert_eq!(world.count("select count(*) from auth.users").await, 1);
}

#[tokio::test]
async fn id_tokens_that_prove_nothing_are_refused() {
    let world = World::with(vec![ada()], |_| ()).await;
    let good = world.sites.id_token("1001", "app", Some(&hashed("raw")), Some("access"));
    let now = chrono::Utc::now().timestamp();
    let claims = |change: Value| {
        let mut claims = json!({
            "iss": world.sites.issuer().as_str(), "sub": "1001", "aud": "app", "iat": now, "exp": now + 600,
            "email": "ada@example.com", "email_verified": true,
        });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let none = {
        use base64::Engine;
        let part = |value: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.", part(&json!({"alg": "none"})), part(&claims(json!({}))))
    };
    let cases = [
        ("nothing", json!({}), "id_token required"),
        ("neither", json!({"provider": "", "id_token": good}), "provider or client_id and issuer required"),
        (
            "no nonce",
            json!({"id_token": good}),
            "Passed nonce and nonce in id_token should either both exist or not.",
        ),
        ("other nonce", json!({"id_token": good, "nonce": "other"}), "Nonces mismatch"),
        ("the hash as nonce", json!({"id_token": good, "nonce": hashed("raw")}), "Nonces mismatch"),
        (
            "other access token",
            json!({"id_token": good, "nonce": "raw", "access_token": "x"}),
            "Bad ID token",
        ),
        ("garbage", json!({"id_token": "a.b.c"}), "Bad ID token"),
        ("unsigned", json!({"id_token": none}), "Bad ID token"),
        ("forged", json!({"id_token": world.sites.forge(&claims(json!({})))}), "Bad ID token"),
        (
            "expired",
            json!({"id_token": world.sites.mint(&claims(json!({"exp": now - 120})))}),
            "Bad ID token",
        ),
        (
            "other issuer",
            json!({"id_token": world.sites.mint(&claims(json!({"iss": "https://evil"})))}),
            "Bad ID token",
        ),
        (
            "other audience",
            json!({"id_token": world.sites.mint(&claims(json!({"aud": "else"})))}),
            "Unacceptable audience in id_token: [\"else\"]",
        ),
        ("nobody", json!({"id_token": world.sites.mint(&claims(json!({"sub": ""})))}), "Bad ID token"),
        (
            "linking without a session",
            json!({"id_token": good, "nonce": "raw", "link_identity": true}),
            "Linking requires a valid user access token in Authorization",
        ),
    ];
    for (name, change, message) in cases {
        let mut body = json!({ "provider": "house" });
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        let answer = world.auth.post("/token?grant_type=id_token", body).await;
        assert_eq!(
            (answer.status, answer.text_at("/error_description")),
            (400, message),
            "{name}: {}",
            answer.text
        );
    }
    let body = json!({ "provider": "apple", "id_token": good });
    let answer = world.auth.post("/token?grant_type=id_token", body).await;
    assert_eq!(answer.code(), "provider_disabled", "{}", answer.text);
    assert_eq!(world.count("select count(*) from auth.users").await, 0);
}

#[tokio::test]
async fn new_keys_of_a_provider_are_fetched_when_they_first_appear() {
    let world = World::with(vec![ada()], |_| ()).await;
    world.user(&world.sign_in("house", "ada@example.com").await).await;
    world.sites.rotate_keys(true);
    let token = world.sites.id_token("1001", "app", None, None);
    let body = json!({ "provider": "house", "id_token": token });
    // Strangers choose key ids: within seconds of a fetch there is no other.
    let answer = world.auth.post("/token?grant_type=id_token", body).await;
    assert_eq!(answer.text_at("/error_description"), "Bad ID token");
    assert_eq!(world.sites.hits("/jwks.json"), 1);
}

#[tokio::test]
async fn people_link_and_unlink_identities() {
    let world = World::with(vec![Person::new("5", "Ada", "ada@work.example")], |options| {
        options.manual_linking = true;
    })
    .await;
    let session = world.auth.signed_up("ada@example.com").await;
    let token = session["access_token"].as_str().unwrap();
    let path = format!("/user/identities/authorize?provider=house&redirect_to={APP}&skip_http_redirect=true");
    assert_eq!(world.auth.get(&path).await.status, 401, "only for the signed-in");
    let start = world.auth.get_as(token, &path).await;
    assert_eq!(start.status, 200, "{}", start.text);
    let answer = world.arrive(start.text_at("/url").parse().unwrap(), "ada@work.example").await;
    let user = world.user(&answer).await;
    assert_eq!(user["id"], session["user"]["id"]);
    assert_eq!(user["email"], "ada@example.com", "the account keeps its own address");
    assert_eq!(user["app"]["providers"], json!(["email", "house"]));

    let start = world.auth.get_as(token, &path).await;
    let answer = world.arrive(start.text_at("/url").parse().unwrap(), "ada@work.example").await;
    assert_eq!(answer.in_query("error_code").unwrap(), "identity_already_exists");

    let ids = |provider: &'static str| {
        let user = user.clone();
        user["identities"].as_array().unwrap().iter().find(|i| i["provider"] == provider).unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (email, house) = (ids("email"), ids("house"));
    let gone = world.auth.delete_as(token, &format!("/user/identities/{}", Uuid::nil())).await;
    assert_eq!(gone.code(), "identity_not_found");
    // Both at once: one identity must stay.
    let (one, two) = (format!("/user/identities/{email}"), format!("/user/identities/{house}"));
    let (one, two) = tokio::join!(world.auth.delete_as(token, &one), world.auth.delete_as(token, &two));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 422], "{} {}", one.text, two.text);
    assert_eq!(world.count("select count(*) from auth.identities").await, 1);
    let sql = "select u.email = i.email, u.raw_app_meta_data->'providers' = jsonb_build_array(i.provider)
        from auth.users u join auth.identities i on i.user_id = u.id";
    let row = world.auth.sql.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1)), (true, true), "the account has the address of what is left");
}

#[tokio::test]
async fn linking_is_off_unless_switched_on() {
    let world = World::with(vec![], |_| ()).await;
    let session = world.auth.signed_up("ada@example.com").await;
    let token = session["access_token"].as_str().unwrap();
    let answer = world.auth.get_as(token, "/user/identities/authorize?provider=house").await;
    assert_eq!((answer.status, answer.code()), (404, "manual_linking_disabled"));
}

#[tokio::test]
async fn anonymous_visitors_become_people_by_linking() {
    let world = World::with(vec![ada()], |options| {
        options.manual_linking = true;
        options.anonymous = true;
    })
    .await;
    let visitor = world.auth.post("/signup", json!({})).await;
    let token = visitor.text_at("/access_token");
    let path = format!("/user/identities/authorize?provider=house&redirect_to={APP}&skip_http_redirect=true");
    let start = world.auth.get_as(token, &path).await;
    let answer = world.arrive(start.text_at("/url").parse().unwrap(), "ada@example.com").await;
    let user = world.user(&answer).await;
    assert_eq!(user["id"], visitor.body["user"]["id"]);
    assert_eq!((user["email"].as_str(), user["confirmed"].as_bool()), (Some("ada@example.com"), Some(true)));
    let token = answer.in_fragment("access_token").unwrap();
    assert_eq!(world.auth.claims(&json!({ "access_token": token }))["is_anonymous"], false);
}

#[tokio::test]
async fn private_addresses_are_not_asked() {
    let world = World::with(vec![ada()], |options| options.allow_private_addresses = false).await;
    let answer = world.auth.get("/authorize?provider=house").await;
    assert_eq!(answer.status, 500);
    assert_eq!(world.sites.hits("/plain/.well-known/openid-configuration"), 0);
    let headers = [("accept", "application/json")];
    let answer = world.auth.send(Method::GET, "/authorize?provider=house", None, &headers, None).await;
    assert_eq!(answer.text_at("/msg"), "Unable to reach the provider House: try again later");
}

#[tokio::test]
async fn invited_people_may_come_through_a_provider() {
    let people = vec![ada(), Person::new("2002", "Mallory", "mallory@example.com")];
    let world = World::with(people, |options| options.disable_signup = true).await;
    let invite = async |email: &str| {
        let answer = world.auth.post_as(world.auth.service_key(), "/invite", json!({ "email": email })).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        world.auth.last_mail(email).await.token_hash().to_owned()
    };
    let token = invite("ada@example.com").await;
    let site = world.authorize(&format!("provider=house&invite_token={token}")).await;
    let stranger = world.arrive(site, "mallory@example.com").await;
    assert_eq!(
        stranger.in_query("error_description").unwrap(),
        "Invited email does not match emails from external provider"
    );
    let site = world.authorize(&format!("provider=house&invite_token={token}")).await;
    let user = world.user(&world.arrive(site, "ada@example.com").await).await;
    assert_eq!((user["email"].as_str(), user["confirmed"].as_bool()), (Some("ada@example.com"), Some(true)));
    let used = world.auth.get(&format!("/authorize?provider=house&invite_token={token}")).await;
    assert_eq!(used.status, 404, "an invitation is accepted once");
}

#[tokio::test]
async fn a_verified_address_does_not_confirm_another() {
    let world = World::with(vec![ada().unverified()], |_| ()).await;
    world.sign_in("house", "ada@example.com").await;
    // The person at the provider gets another address, this time a verified one.
    world.sites.set_people(vec![Person::new("1001", "Ada Lovelace", "other@example.com")]);
    let answer = world.sign_in("house", "other@example.com").await;
    assert_eq!(answer.in_query("error_code").unwrap(), "provider_email_needs_verification", "{answer:?}");
    assert_eq!(world.count("select count(*) from auth.users where email_confirmed_at is not null").await, 0);
}
