//! Accounts that a server makes for people.

use http::StatusCode;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::service::accounts::{
    Name, email_exists, insert_identity, not_stored, owner_of_email, phone_exists,
};
use crate::service::error::AuthApiError;
use crate::service::store::{NewUser, Tx, User};
use crate::service::tokens::gone;

/// An account to make. It has at least one name.
#[derive(Debug, Default)]
pub(in super::super) struct NewAccount {
    pub(in super::super) id: Option<Uuid>,
    pub(in super::super) role: String,
    /// In lower case.
    pub(in super::super) email: String,
    /// Digits.
    pub(in super::super) phone: String,
    pub(in super::super) password_hash: Option<String>,
    pub(in super::super) user_metadata: Map<String, Value>,
}

impl NewAccount {
    /// Stores the account, unconfirmed, with an identity for each of its names.
    ///
    /// # Errors
    /// `email_exists`, `phone_exists`, or `user_already_exists` for its id.
    pub(in super::super) async fn store(self, tx: &Tx) -> Result<User, AuthApiError> {
        if !self.email.is_empty() && owner_of_email(tx, &self.email, None).await?.is_some() {
            return Err(email_exists());
        }
        if !self.phone.is_empty() && User::by_phone(tx, &self.phone).await?.is_some() {
            return Err(phone_exists());
        }
        let names = [
            (!self.email.is_empty()).then(|| Name::Email(self.email.clone())),
            (!self.phone.is_empty()).then(|| Name::Phone(self.phone.clone())),
        ];
        let names: Vec<_> = names.into_iter().flatten().collect();
        let providers: Vec<_> = names.iter().map(Name::provider).collect();
        let id = self.id.unwrap_or_else(Uuid::new_v4);
        let new = NewUser {
            id: Some(id),
            role: if self.role.is_empty() { "authenticated".to_owned() } else { self.role },
            email: self.email,
            phone: self.phone,
            encrypted_password: self.password_hash,
            app_metadata: Map::from_iter([
                ("provider".to_owned(), json!(providers.first())),
                ("providers".to_owned(), json!(providers)),
            ]),
            user_metadata: self.user_metadata,
            is_anonymous: false,
        };
        User::insert(tx, &new).await.map_err(taken)?;
        for name in &names {
            insert_identity(tx, id, name.provider(), name.identity_data(id, &Map::new())).await?;
        }
        User::find(tx, id).await?.ok_or_else(gone)
    }
}

/// Which of an account's names or its id somebody else has, if that is what a statement failed of.
pub(in super::super) fn taken(error: longhouse_database::Error) -> AuthApiError {
    let longhouse_database::Error::Query(query) = &error else { return error.into() };
    let Some(violated) = query.as_db_error().filter(|refusal| refusal.code().code() == "23505") else {
        return super::unless_refused_or(error, not_stored);
    };
    match violated.constraint() {
        Some("users_email_partial_key") => email_exists(),
        Some("users_phone_key") => phone_exists(),
        _ => AuthApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "user_already_exists",
            "A user with this id has already been registered",
        ),
    }
}
