//! PGRST300 to PGRST303: tokens that do not establish who asks.

use thiserror::Error;

/// Why a token, or the lack of one, is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JwtError {
    /// PGRST300: a token came and nothing is configured to verify it with.
    #[error("Server lacks JWT secret")]
    SecretMissing,
    /// PGRST302: no token, and anonymous access is off.
    #[error("Anonymous access is disabled")]
    TokenRequired,
    /// PGRST301: `Authorization: Bearer` and nothing.
    #[error("Empty JWT is sent in Authorization header")]
    Empty,
    /// PGRST301: not three parts.
    #[error("Expected 3 parts in JWT; got {0}")]
    UnexpectedParts(usize),
    /// PGRST301: no key fits; says why.
    #[error("No suitable key or wrong key type")]
    Key(String),
    /// PGRST301: an algorithm that is not accepted; says which.
    #[error("Wrong or unsupported encoding algorithm")]
    Algorithm(String),
    /// PGRST301: the signature is wrong.
    #[error("JWT cryptographic operation failed")]
    Crypto,
    /// PGRST301: an encrypted or nested token.
    #[error("Unsupported token type")]
    TokenType,
    /// PGRST301: anything else in decoding.
    #[error("JWT couldn't be decoded")]
    Undecodable,
    /// PGRST303
    #[error("JWT expired")]
    Expired,
    /// PGRST303: `nbf` is to come.
    #[error("JWT not yet valid")]
    NotYetValid,
    /// PGRST303: `iat` is to come.
    #[error("JWT issued at future")]
    IssuedInFuture,
    /// PGRST303: `aud` names somebody else.
    #[error("JWT not in audience")]
    NotInAudience,
    /// PGRST303: the claims are no JSON object.
    #[error("Parsing claims failed")]
    Claims,
    /// PGRST303: `exp`, `nbf` or `iat` (which is held) is no number.
    #[error("The JWT '{0}' claim must be a number")]
    ClaimNotNumber(&'static str),
    /// PGRST303
    #[error("The JWT 'aud' claim must be a string or an array of strings")]
    AudienceType,
}

impl JwtError {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::SecretMissing => "PGRST300",
            Self::TokenRequired => "PGRST302",
            Self::Empty
            | Self::UnexpectedParts(_)
            | Self::Key(_)
            | Self::Algorithm(_)
            | Self::Crypto
            | Self::TokenType
            | Self::Undecodable => "PGRST301",
            Self::Expired
            | Self::NotYetValid
            | Self::IssuedInFuture
            | Self::NotInAudience
            | Self::Claims
            | Self::ClaimNotNumber(_)
            | Self::AudienceType => "PGRST303",
        }
    }

    pub(super) fn details(&self) -> Option<String> {
        match self {
            Self::Key(details) | Self::Algorithm(details) => Some(details.clone()),
            _ => None,
        }
    }

    /// The challenge of the answer.
    pub(super) fn challenge(&self) -> Option<String> {
        match self {
            Self::SecretMissing => None,
            Self::TokenRequired => Some("Bearer".to_owned()),
            _ => Some(format!("Bearer error=\"invalid_token\", error_description=\"{self}\"")),
        }
    }
}
