//! The authorization code flow: the address that a person is sent to, and what their code is exchanged for.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Utc;
use constant_time_eq::constant_time_eq;
use oauth2::basic::{
    BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType,
};
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, Client, ClientId, ClientSecret, CsrfToken, EndpointNotSet,
    EndpointSet, ExtraTokenFields, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RequestTokenError,
    Scope, StandardRevocableToken, StandardTokenResponse, TokenResponse as _, TokenUrl,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

use super::id_tokens::text;
use super::profile::{DiscordUser, GitHubEmail, GitHubUser, of_discord, of_github};
use super::{GITHUB_API, Kind, Profile, Provider, ProviderError, Providers, apple, below, fetch};

/// Parameters that the flow owns: a page may not set them.
const OWN_PARAMETERS: &[&str] = &[
    "client_id",
    "client_secret",
    "redirect_uri",
    "response_type",
    "response_mode",
    "state",
    "scope",
    "scopes",
    "code_challenge",
    "code_challenge_method",
    "code_verifier",
    "nonce",
    "provider",
    "redirect_to",
    "skip_http_redirect",
    "invite_token",
    "flow_type",
    "apikey",
    "token",
    "access_token",
];
/// Most and longest parameters that a page may add.
const MOST_PARAMETERS: usize = 20;
const LONGEST_PARAMETER: usize = 1024;

/// A sign-in that begins.
pub(crate) struct Request<'a> {
    /// Id of the row that stands for it.
    pub(crate) state: &'a str,
    /// Our secret of this sign-in: PKCE's verifier, from which the nonce is derived too.
    pub(crate) verifier: &'a str,
    /// Further scopes, separated by commas or spaces.
    pub(crate) scopes: &'a str,
    /// Further parameters of the page (`prompt`, `access_type`, `login_hint`, …).
    pub(crate) parameters: &'a [(String, String)],
}

/// What a code was exchanged for.
pub(crate) struct Exchanged {
    pub(crate) profile: Profile,
    pub(crate) access_token: SecretString,
    pub(crate) refresh_token: Option<SecretString>,
}

#[derive(Debug, Deserialize, Serialize)]
struct IdTokenField {
    #[serde(default)]
    id_token: Option<String>,
}

impl ExtraTokenFields for IdTokenField {}

type Tokens = StandardTokenResponse<IdTokenField, BasicTokenType>;
type OAuth<TokenEndpoint> = Client<
    BasicErrorResponse,
    Tokens,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    TokenEndpoint,
>;

/// Where a provider's flow happens.
struct Endpoints {
    authorize: Url,
    token: Url,
    auth: AuthType,
    userinfo: Option<Url>,
}

/// A secret for a sign-in.
pub(crate) fn new_verifier() -> String {
    PkceCodeVerifier::into_secret(PkceCodeChallenge::new_random_sha256().1)
}

/// The nonce of a sign-in; reveals nothing about the verifier.
fn nonce(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::new().chain_update("nonce of ").chain_update(verifier).finalize())
}

impl Providers {
    /// The address to send the person to.
    pub(crate) async fn authorization_url(
        &self,
        provider: &Provider,
        request: &Request<'_>,
    ) -> Result<Url, ProviderError> {
        let endpoints = self.endpoints(provider).await?;
        let client = self.client(provider, &endpoints)?;
        let state = request.state.to_owned();
        let mut authorization = client.authorize_url(move || CsrfToken::new(state));
        for scope in scopes(provider.kind, request.scopes) {
            authorization = authorization.add_scope(Scope::new(scope));
        }
        if provider.kind == Kind::Apple {
            // Apple hands out names and addresses only this way, and knows no PKCE.
            authorization = authorization.add_extra_param("response_mode", "form_post");
        } else {
            let verifier = PkceCodeVerifier::new(request.verifier.to_owned());
            authorization =
                authorization.set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier));
        }
        if provider.has_id_tokens() {
            authorization = authorization.add_extra_param("nonce", nonce(request.verifier));
        }
        for (name, value) in passed_on(request.parameters) {
            authorization = authorization.add_extra_param(name, value);
        }
        Ok(authorization.url().0)
    }

    /// Exchanges a code for tokens, and these for what the provider says about the person.
    pub(crate) async fn exchange(
        &self,
        provider: &Provider,
        code: &str,
        verifier: &str,
    ) -> Result<Exchanged, ProviderError> {
        let endpoints = self.endpoints(provider).await?;
        let client =
            self.client(provider, &endpoints)?.set_token_uri(TokenUrl::from_url(endpoints.token.clone()));
        let mut exchange = client.exchange_code(AuthorizationCode::new(code.to_owned()));
        if provider.kind != Kind::Apple {
            exchange = exchange.set_pkce_verifier(PkceCodeVerifier::new(verifier.to_owned()));
        }
        let http = |request| fetch::for_oauth2(Arc::clone(&self.outbound), request);
        let tokens = exchange.request_async(&http).await.map_err(|error| match error {
            RequestTokenError::ServerResponse(refusal) => ProviderError::Code(refusal.to_string()),
            RequestTokenError::Request(error) => error.into(),
            RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
                ProviderError::Answer("to the code is no token response (RFC 6749 §5.1)")
            }
        })?;
        let access_token = tokens.access_token().secret();
        let profile = match provider.kind {
            Kind::GitHub => self.github(provider, access_token).await?,
            Kind::Discord => {
                let api = below(&provider.base, "api");
                let user: DiscordUser =
                    self.outbound.get_json(&below(&api, "users/@me"), Some(access_token)).await?;
                of_discord(api.as_str(), user)
            }
            _ => self.openid(provider, &endpoints, &tokens, verifier).await?,
        };
        Ok(Exchanged {
            profile,
            access_token: access_token.clone().into(),
            refresh_token: tokens.refresh_token().map(|token| token.secret().clone().into()),
        })
    }

    /// The profile in the ID token; with that of the user info endpoint where the token has no address.
    async fn openid(
        &self,
        provider: &Provider,
        endpoints: &Endpoints,
        tokens: &Tokens,
        verifier: &str,
    ) -> Result<Profile, ProviderError> {
        let id_token = tokens.extra_fields().id_token.as_deref();
        let id_token = id_token.ok_or(ProviderError::Answer("has no id_token: allow the scope `openid`"))?;
        let access_token = tokens.access_token().secret();
        let (mut claims, profile) = self.verify(provider, id_token, Some(access_token)).await?;
        if !constant_time_eq(text(&claims, "nonce").as_bytes(), nonce(verifier).as_bytes()) {
            return Err(ProviderError::Answer("belongs to another sign-in (wrong nonce): start again"));
        }
        let (Kind::Oidc, true, Some(userinfo)) =
            (provider.kind, profile.emails.is_empty(), &endpoints.userinfo)
        else {
            return Ok(profile);
        };
        let info: serde_json::Map<_, _> = self.outbound.get_json(userinfo, Some(access_token)).await?;
        // OpenID Connect Core §5.3.2.
        if text(&info, "sub") != profile.subject {
            return Err(ProviderError::Answer("describes two different people in ID token and user info"));
        }
        for (name, value) in info {
            claims.entry(name).or_insert(value);
        }
        Ok(provider.profile(&claims))
    }

    async fn github(&self, provider: &Provider, access_token: &str) -> Result<Profile, ProviderError> {
        let api = match &provider.options.url {
            Some(enterprise) => below(enterprise, "api/v3"),
            None => GITHUB_API.parse().expect("a constant address"),
        };
        let user: GitHubUser = self.outbound.get_json(&below(&api, "user"), Some(access_token)).await?;
        let emails: Vec<GitHubEmail> =
            self.outbound.get_json(&below(&api, "user/emails"), Some(access_token)).await?;
        Ok(of_github(api.as_str().trim_end_matches('/'), user, emails))
    }

    async fn endpoints(&self, provider: &Provider) -> Result<Endpoints, ProviderError> {
        let plain = |authorize, token| Endpoints {
            authorize: below(&provider.base, authorize),
            token: below(&provider.base, token),
            auth: AuthType::RequestBody,
            userinfo: None,
        };
        match provider.kind {
            Kind::GitHub => Ok(plain("login/oauth/authorize", "login/oauth/access_token")),
            Kind::Discord => Ok(plain("api/oauth2/authorize", "api/oauth2/token")),
            _ => {
                let discovery = self.discover(provider).await?;
                let methods = discovery.token_endpoint_auth_methods_supported.as_deref();
                // Discovery §3: without a list it is client_secret_basic.
                let post = methods
                    .is_some_and(|methods| methods.iter().any(|method| method == "client_secret_post"));
                Ok(Endpoints {
                    authorize: discovery.authorization_endpoint.clone(),
                    token: discovery.token_endpoint.clone(),
                    auth: if post || provider.options.secret.is_none() {
                        AuthType::RequestBody
                    } else {
                        AuthType::BasicAuth
                    },
                    userinfo: discovery.userinfo_endpoint.clone(),
                })
            }
        }
    }

    fn client(
        &self,
        provider: &Provider,
        endpoints: &Endpoints,
    ) -> Result<OAuth<EndpointNotSet>, ProviderError> {
        let callback = provider.options.redirect_uri.as_ref().unwrap_or(&self.callback);
        let mut client = Client::new(ClientId::new(provider.client_id().to_owned()))
            .set_auth_uri(AuthUrl::from_url(endpoints.authorize.clone()))
            .set_redirect_uri(RedirectUrl::from_url(callback.clone()))
            .set_auth_type(endpoints.auth.clone());
        if let Some(secret) = &provider.options.secret {
            let secret = match provider.kind {
                Kind::Apple => apple::client_secret(provider.client_id(), secret, Utc::now().timestamp())
                    .map_err(ProviderError::Settings)?,
                _ => secret.clone(),
            };
            client = client.set_client_secret(ClientSecret::new(secret.expose_secret().to_owned()));
        }
        Ok(client)
    }
}

/// What is asked for: what a profile needs, and what the page adds.
fn scopes(kind: Kind, further: &str) -> Vec<String> {
    let needed: &[&str] = match kind {
        Kind::Google | Kind::Azure | Kind::Oidc => &["openid", "email", "profile"],
        Kind::Apple => &["email", "name"],
        Kind::GitHub => &["user:email"],
        Kind::Discord => &["email", "identify"],
    };
    let mut scopes: Vec<String> = needed.iter().map(|scope| (*scope).to_owned()).collect();
    for scope in further.split([',', ' ']).filter(|scope| !scope.is_empty()) {
        if !scopes.iter().any(|known| known == scope) {
            scopes.push(scope.to_owned());
        }
    }
    scopes
}

/// The page's own parameters that may go to the provider.
fn passed_on(parameters: &[(String, String)]) -> impl Iterator<Item = (String, String)> {
    parameters
        .iter()
        .filter(|(name, value)| {
            !OWN_PARAMETERS.contains(&name.to_lowercase().as_str())
                && name.len() <= LONGEST_PARAMETER
                && value.len() <= LONGEST_PARAMETER
        })
        .take(MOST_PARAMETERS)
        .cloned()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Kind::Google, "", "openid email profile")]
    #[case(Kind::GitHub, "repo gist", "user:email repo gist")]
    #[case(Kind::Discord, "identify,guilds", "email identify guilds")]
    #[case(Kind::Apple, " ", "email name")]
    fn scopes_are_joined(#[case] kind: Kind, #[case] further: &str, #[case] expected: &str) {
        assert_eq!(scopes(kind, further).join(" "), expected);
    }

    #[test]
    fn pages_cannot_change_what_the_flow_owns() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let parameters = [
            pair("prompt", "consent"),
            pair("State", "mine"),
            pair("redirect_uri", "https://evil"),
            pair("REDIRECT_URI", "https://evil"),
            pair("nonce", "1"),
            pair("hd", &"x".repeat(2000)),
        ];
        assert_eq!(passed_on(&parameters).collect::<Vec<_>>(), [pair("prompt", "consent")]);
    }

    #[test]
    fn the_nonce_hides_the_verifier() {
        let verifier = new_verifier();
        assert!(verifier.len() >= 43);
        assert_ne!(nonce(&verifier), verifier);
        assert_ne!(nonce(&verifier), nonce(&new_verifier()));
        let challenge =
            PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(verifier.clone()));
        assert_ne!(nonce(&verifier), challenge.as_str());
    }
}
