//! The signing keys of a hosted project, fetched from its JWKS endpoint.

use std::time::Duration;

use reqwest::Client;
use reqwest::redirect::Policy;
use url::Url;

use crate::KeysError;
use crate::jwks::{VerifyingKey, read_set};

/// Longest wait for the whole answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Larger answers are not read to their end.
const MOST_BYTES: usize = 64 * 1024;

/// Where a hosted project publishes its keys.
#[derive(Debug, Clone)]
pub struct External {
    url: Url,
    client: Client,
}

impl External {
    /// The keys of the project at `supabase.url`.
    ///
    /// # Errors
    /// No HTTP client can be made.
    pub fn of_project(project: &Url) -> Result<Self, KeysError> {
        let mut url = project.clone();
        url.set_path(&format!("{}/auth/v1/.well-known/jwks.json", project.path().trim_end_matches('/')));
        // A redirect would let another host say whose tokens are good.
        let client = Client::builder().timeout(DEADLINE).redirect(Policy::none()).build();
        match client {
            Ok(client) => Ok(Self { url, client }),
            Err(error) => Err(KeysError::Fetch { url, reason: error.to_string() }),
        }
    }

    /// Fetches the keys.
    ///
    /// # Errors
    /// [`KeysError::Fetch`]; the keys known so far stay good.
    pub(crate) async fn fetch(&self) -> Result<Vec<VerifyingKey>, KeysError> {
        let failed = |reason: String| KeysError::Fetch { url: self.url.clone(), reason };
        let mut response = self
            .client
            .get(self.url.clone())
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(|error| failed(error.without_url().to_string()))?;
        let mut body = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| failed(error.without_url().to_string()))?
        {
            body.extend_from_slice(&chunk);
            if body.len() > MOST_BYTES {
                return Err(failed(format!("the answer is longer than {MOST_BYTES} bytes")));
            }
        }
        let document =
            serde_json::from_slice(&body).map_err(|_| failed("the answer is not JSON".to_owned()))?;
        read_set(&document).map_err(|reason| failed(reason.to_owned()))
    }
}
