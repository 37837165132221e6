//! The OpenID Connect emulator refuses what the RFCs do not allow.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use longhouse_emulators::oidc::{Algorithm, Client, Options, Person, Server};
use reqwest::redirect::Policy;
use rstest::rstest;
use serde_json::{Value, json};
use url::Url;

const CALLBACK: &str = "http://app.test/callback";
// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

async fn server() -> Server {
    let clients = vec![Client::new("app", "secret", CALLBACK), Client::new("other", "secret", CALLBACK)];
    let people =
        vec![Person::new("1", "Ada Lovelace", "ada@example.com"), Person::new("2", "Bob", "bob@example.com")];
    Server::start(Options { clients, people, ..Options::default() }).await.unwrap()
}

fn browser() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().redirect(Policy::none()).build().unwrap()
}

/// A good request of the plain issuer, with changes; an empty value takes a parameter away.
fn authorize(server: &Server, changes: &[(&str, &str)]) -> Url {
    let mut parameters = vec![
        ("client_id", "app"),
        ("redirect_uri", CALLBACK),
        ("response_type", "code"),
        ("scope", "openid email profile"),
        ("state", "s1"),
        ("nonce", "n1"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
        ("login_hint", "ada@example.com"),
    ];
    for (name, value) in changes {
        parameters.retain(|(known, _)| known != name);
        if !value.is_empty() {
            parameters.push((name, value));
        }
    }
    Url::parse_with_params(&format!("{}/authorize", server.issuer()), parameters).unwrap()
}

async fn location(url: Url) -> Url {
    let response = browser().get(url).send().await.unwrap();
    assert_eq!(response.status(), 302);
    response.headers()["location"].to_str().unwrap().parse().unwrap()
}

fn parameter(url: &Url, name: &str) -> String {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
}

async fn code(server: &Server, changes: &[(&str, &str)]) -> String {
    parameter(&location(authorize(server, changes)).await, "code")
}

/// A good exchange of a code, with changes.
async fn token(server: &Server, code: &str, changes: &[(&str, &str)]) -> (u16, Value) {
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", CALLBACK),
        ("code_verifier", VERIFIER),
    ];
    let mut login = ("app", "secret");
    for (name, value) in changes {
        match *name {
            "user" => login.0 = value,
            "password" => login.1 = value,
            _ => {
                form.retain(|(known, _)| known != name);
                if !value.is_empty() {
                    form.push((name, value));
                }
            }
        }
    }
    let request =
        browser().post(format!("{}/token", server.issuer())).basic_auth(login.0, Some(login.1)).form(&form);
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["cache-control"], "no-store");
    (response.status().as_u16(), response.json().await.unwrap())
}

#[rstest]
#[case(Algorithm::Rs256, "RS256", "RSA")]
#[case(Algorithm::Es256, "ES256", "EC")]
#[tokio::test]
async fn a_sign_in_gives_tokens_whose_signature_verifies(
    #[case] algorithm: Algorithm,
    #[case] name: &str,
    #[case] kind: &str,
) {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
    };
    let clients = vec![Client::new("app", "secret", CALLBACK)];
    let people = vec![Person::new("1", "Ada Lovelace", "ada@example.com")];
    let server = Server::start(Options { clients, people, algorithm, ..Options::default() }).await.unwrap();
    let discovery: Value = reqwest::get(format!("{}/.well-known/openid-configuration", server.issuer()))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(discovery["issuer"], server.issuer().as_str());
    let back = location(authorize(&server, &[])).await;
    assert_eq!(
        (parameter(&back, "state").as_str(), parameter(&back, "iss")),
        ("s1", server.issuer().to_string())
    );
    let (status, tokens) = token(&server, &parameter(&back, "code"), &[]).await;
    assert_eq!(status, 200, "{tokens}");
    assert!(tokens.get("refresh_token").is_none(), "nobody asked for it");
    let id_token = tokens["id_token"].as_str().unwrap();
    let parts: Vec<_> = id_token.split('.').collect();
    let read = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    let (header, claims) = (read(parts[0]), read(parts[1]));
    assert_eq!(header["alg"], name);
    assert_eq!(
        (&claims["nonce"], &claims["aud"], &claims["email"]),
        (&json!("n1"), &json!("app"), &json!("ada@example.com"))
    );
    let keys: Value =
        reqwest::get(discovery["jwks_uri"].as_str().unwrap()).await.unwrap().json().await.unwrap();
    let key = &keys["keys"][0];
    assert_eq!((&key["kid"], key["kty"].as_str()), (&header["kid"], Some(kind)));
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let signed = format!("{}.{}", parts[0], parts[1]);
    let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    match algorithm {
        Algorithm::Rs256 => RsaPublicKeyComponents { n: bytes("n"), e: bytes("e") }
            .verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature)
            .unwrap(),
        Algorithm::Es256 => {
            let point = [&[4][..], &bytes("x"), &bytes("y")].concat();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                .verify(signed.as_bytes(), &signature)
                .unwrap();
        }
    }
    let info = browser()
        .get(format!("{}/userinfo", server.issuer()))
        .bearer_auth(tokens["access_token"].as_str().unwrap());
    let info: Value = info.send().await.unwrap().json().await.unwrap();
    assert_eq!((&info["sub"], &info["name"]), (&json!("1"), &json!("Ada Lovelace")));
    let stranger =
        browser().get(format!("{}/userinfo", server.issuer())).bearer_auth("x").send().await.unwrap();
    assert_eq!(stranger.status(), 401);
    assert!(stranger.headers()["www-authenticate"].to_str().unwrap().contains("invalid_token"));
}

#[rstest]
#[case::unknown_client(&[("client_id", "nobody")])]
#[case::other_address(&[("redirect_uri", "http://app.test/callback/")])]
#[case::no_address(&[("redirect_uri", "")])]
#[tokio::test]
async fn nothing_is_sent_to_addresses_that_nobody_checked(#[case] changes: &[(&str, &str)]) {
    let server = server().await;
    let response = browser().get(authorize(&server, changes)).send().await.unwrap();
    assert_eq!(response.status(), 400);
    assert!(response.headers().get("location").is_none());
}

#[rstest]
#[case(&[("response_type", "token")], "unsupported_response_type")]
#[case(&[("response_type", "")], "invalid_request")]
#[case(&[("scope", "email")], "invalid_scope")]
#[case(&[("code_challenge", "")], "invalid_request")]
#[case(&[("code_challenge", "short")], "invalid_request")]
#[case(&[("code_challenge_method", "plain")], "invalid_request")]
#[case(&[("code_challenge", ""), ("code_challenge_method", "")], "invalid_request")]
#[case(&[("response_mode", "fragment")], "invalid_request")]
#[case(&[("login_hint", ""), ("prompt", "none")], "login_required")]
#[tokio::test]
async fn wrong_requests_come_back_with_an_error(#[case] changes: &[(&str, &str)], #[case] error: &str) {
    let server = server().await;
    let back = location(authorize(&server, changes)).await;
    assert_eq!((parameter(&back, "error").as_str(), parameter(&back, "state").as_str()), (error, "s1"));
    assert_eq!(parameter(&back, "code"), "");
}

#[tokio::test]
async fn repeated_parameters_are_refused() {
    let server = server().await;
    let mut url = authorize(&server, &[]);
    url.query_pairs_mut().append_pair("scope", "openid");
    assert_eq!(browser().get(url).send().await.unwrap().status(), 400);
}

#[rstest]
#[case::verifier(&[("code_verifier", "x0123456789012345678901234567890123456789012345")], 400, "invalid_grant")]
#[case::no_verifier(&[("code_verifier", "")], 400, "invalid_grant")]
#[case::address(&[("redirect_uri", "http://app.test/")], 400, "invalid_grant")]
#[case::other_client(&[("user", "other")], 400, "invalid_grant")]
#[case::wrong_secret(&[("password", "wrong")], 401, "invalid_client")]
#[case::unknown(&[("user", "nobody")], 401, "invalid_client")]
#[case::twice(&[("client_secret", "secret")], 400, "invalid_request")]
#[case::grant(&[("grant_type", "password")], 400, "unsupported_grant_type")]
#[case::no_grant(&[("grant_type", "")], 400, "invalid_request")]
#[case::no_code(&[("code", "")], 400, "invalid_request")]
#[tokio::test]
async fn codes_are_exchanged_strictly(
    #[case] changes: &[(&str, &str)],
    #[case] status: u16,
    #[case] error: &str,
) {
    let server = server().await;
    let code = code(&server, &[]).await;
    let (actual, answer) = token(&server, &code, changes).await;
    assert_eq!((actual, answer["error"].as_str()), (status, Some(error)), "{answer}");
    assert!(answer.get("access_token").is_none());
}

#[tokio::test]
async fn a_code_used_twice_ends_what_it_gave() {
    let server = server().await;
    let code = code(&server, &[]).await;
    let (_, tokens) = token(&server, &code, &[]).await;
    let info = || {
        browser()
            .get(format!("{}/userinfo", server.issuer()))
            .bearer_auth(tokens["access_token"].as_str().unwrap())
    };
    assert_eq!(info().send().await.unwrap().status(), 200);
    let (status, answer) = token(&server, &code, &[]).await;
    assert_eq!((status, answer["error"].as_str()), (400, Some("invalid_grant")));
    assert_eq!(info().send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn refresh_tokens_rotate() {
    let server = server().await;
    let code = code(&server, &[("scope", "openid offline_access")]).await;
    let (_, tokens) = token(&server, &code, &[]).await;
    let refresh = tokens["refresh_token"].as_str().unwrap();
    let changes = [
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh),
        ("code", ""),
        ("code_verifier", ""),
        ("redirect_uri", ""),
    ];
    let (status, next) = token(&server, "", &changes).await;
    assert_eq!(status, 200, "{next}");
    assert_ne!(next["refresh_token"], refresh);
    assert_eq!(token(&server, "", &changes).await.1["error"], "invalid_grant");
}

#[tokio::test]
async fn people_choose_on_a_page_and_may_say_no() {
    let server = server().await;
    for (choice, expected) in [(("sub", "2"), "code"), (("deny", "1"), "error")] {
        let url = authorize(&server, &[("login_hint", "")]);
        let page = browser().get(url.clone()).send().await.unwrap().text().await.unwrap();
        assert!(page.contains("Continue as Bob (bob@example.com)"), "{page}");
        let ticket = page.split_once("name=\"ticket\" value=\"").unwrap().1.split('"').next().unwrap();
        let form = [("ticket", ticket), choice];
        let post = || browser().post(url.clone()).form(&form).send();
        let back: Url = post().await.unwrap().headers()["location"].to_str().unwrap().parse().unwrap();
        assert!(!parameter(&back, expected).is_empty(), "{back}");
        assert_eq!(post().await.unwrap().status(), 400, "a page is used once");
    }
}

#[tokio::test]
async fn github_answers_in_its_own_way() {
    let server = server().await;
    let query = [
        ("client_id", "app"),
        ("redirect_uri", CALLBACK),
        ("scope", "user:email"),
        ("login_hint", "1"),
        ("state", "x"),
    ];
    let url = Url::parse_with_params(&format!("{}login/oauth/authorize", server.url()), query).unwrap();
    let code = parameter(&location(url).await, "code");
    let form =
        [("client_id", "app"), ("client_secret", "secret"), ("code", &code), ("redirect_uri", CALLBACK)];
    let post = || browser().post(format!("{}login/oauth/access_token", server.url())).form(&form);
    let first = post().send().await.unwrap().text().await.unwrap();
    assert!(first.starts_with("access_token=access-"), "form-encoded unless JSON is asked for: {first}");
    let second = post().header("accept", "application/json").send().await.unwrap();
    assert_eq!(second.status(), 200, "GitHub reports mistakes with 200");
    assert_eq!(second.json::<Value>().await.unwrap()["error"], "invalid_grant");
}
