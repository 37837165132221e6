//! `auth.mfa_factors`, as far as accounts and tokens know them; ceremonies are in `mfa`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A second factor as clients see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Factor {
    pub(crate) id: Uuid,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
    pub(crate) status: FactorStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) friendly_name: Option<String>,
    pub(crate) factor_type: FactorType,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) phone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_challenged_at: Option<DateTime<Utc>>,
}

/// Whether its holder has proved to have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FactorStatus {
    Unverified,
    Verified,
}

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FactorType {
    Totp,
    Phone,
    Webauthn,
}

impl Factor {
    pub(crate) fn is_verified(&self) -> bool {
        self.status == FactorStatus::Verified
    }
}
