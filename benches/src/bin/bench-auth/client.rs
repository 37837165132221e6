//! A client of `/auth/v1`.

use std::sync::Arc;

use longhouse_benches::server::Server;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Error;

/// Connections are kept and shared by all devices.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    site: Arc<Site>,
}

#[derive(Debug)]
struct Site {
    url: String,
    apikey: String,
    service_key: String,
}

/// What is kept of a sign-in.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Session {
    pub(crate) refresh_token: String,
}

impl Client {
    pub(crate) fn new(server: &Server) -> Result<Self, Error> {
        let site = Site {
            url: format!("http://{}/auth/v1", server.address),
            apikey: server.run.publishable_key.clone(),
            service_key: server.run.service_role_key.clone(),
        };
        Ok(Self { http: reqwest::Client::builder().no_proxy().build()?, site: Arc::new(site) })
    }

    /// Makes a confirmed account whose password has that hash.
    pub(crate) async fn create(&self, email: &str, hash: &str) -> Result<(), Error> {
        let body = json!({ "email": email, "password_hash": hash, "email_confirm": true });
        self.post("/admin/users", &self.site.service_key, &body).await.map(drop)
    }

    pub(crate) async fn sign_in(&self, email: &str, password: &str) -> Result<Session, Error> {
        let body = json!({ "email": email, "password": password });
        read(self.post("/token?grant_type=password", &self.site.apikey, &body).await?)
    }

    pub(crate) async fn refresh(&self, token: &str) -> Result<Session, Error> {
        let body = json!({ "refresh_token": token });
        read(self.post("/token?grant_type=refresh_token", &self.site.apikey, &body).await?)
    }

    async fn post(&self, path: &str, key: &str, body: &Value) -> Result<Vec<u8>, Error> {
        let request = self.http.post(format!("{}{path}", self.site.url));
        let response = request.header("apikey", key).bearer_auth(key).json(body).send().await?;
        let status = response.status();
        let body = response.bytes().await?;
        if status.is_success() {
            return Ok(body.into());
        }
        Err(Error::Protocol(format!("{path}: {status} {}", String::from_utf8_lossy(&body))))
    }
}

fn read(body: Vec<u8>) -> Result<Session, Error> {
    serde_json::from_slice(&body).map_err(|error| Error::Protocol(format!("no session: {error}")))
}
