//! Refreshing a session: rotation of refresh tokens, with detection of reuse.
//!
//! A session has one chain of tokens, of which the newest may be used. Clients race with themselves and lose answers,
//! so the token before the newest gets the newest again, and so does any of the chain for some seconds after its use.
//! Whoever comes later with a used token has found or stolen it: the chain ends.
//!
//! Uses of one token at the same time share one refresh here, so that they neither queue for connections nor hold
//! others up; those that reach different servers meet at the session's row.
//!
//! The usual case is one statement (`store::rotate`), in one round trip. Everything else, and every refresh where a
//! hook changes the claims, takes the session's lock and [`decide`]s. Refreshes leave no audit row, they would be most of
//! the log; the end of a chain does.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use serde_json::json;

use super::AuthService;
use super::caller::Caller;
use super::error::AuthApiError;
use super::options::SessionOptions;
use super::store::{self, Action, RefreshToken, Rotation, Session, User, audit, rotate};
use super::tokens::{TokenResponse, new_refresh_token};

/// `method` that the access token hook is told.
const METHOD: &str = "token_refresh";
/// Lengths of refresh tokens: Supabase's oldest ones have 12 characters, the column holds 255.
const LENGTHS: std::ops::RangeInclusive<usize> = 12..=255;

/// What to do with a refresh token.
#[derive(Debug)]
enum Decision {
    /// It is the newest: replace it.
    Rotate,
    /// It was used before, but that is forgiven: answer with the newest.
    Again(String),
    /// Refuse.
    Refuse(AuthApiError),
    /// Refuse, and end the chain.
    EndChain(AuthApiError),
}

type Refreshed = Result<TokenResponse, AuthApiError>;
type Running = HashMap<String, WeakShared<BoxFuture<'static, Refreshed>>>;

/// The refreshes under way, by token. As many as there are requests.
#[derive(Default)]
pub(crate) struct Refreshes {
    running: Mutex<Running>,
}

impl Refreshes {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().expect("no code panics while it holds this lock")
    }
}

/// A request's part in a refresh; the last one takes it off the list.
struct Part<'a> {
    refreshes: &'a Refreshes,
    token: &'a str,
    refresh: Option<Shared<BoxFuture<'static, Refreshed>>>,
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        drop(self.refresh.take());
        let mut running = self.refreshes.running();
        if running.get(self.token).is_some_and(|refresh| refresh.upgrade().is_none()) {
            running.remove(self.token);
        }
    }
}

/// Extends a session by its refresh token.
///
/// # Errors
/// 400 `refresh_token_not_found`, `refresh_token_already_used`, `session_not_found`, `session_expired`, `user_banned`.
pub(crate) async fn refresh(service: &AuthService, caller: &Caller, token: &str) -> Refreshed {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !LENGTHS.contains(&token.len()) || !token.bytes().all(plain) {
        return Err(AuthApiError::invalid("Refresh token is not valid"));
    }
    let refresh = {
        let mut running = service.refreshes.running();
        let joined = running.get(token).and_then(WeakShared::upgrade);
        joined.unwrap_or_else(|| {
            let (service, caller, owned) = (service.clone(), caller.clone(), token.to_owned());
            let refresh = async move { refresh_alone(&service, &caller, &owned).await }.boxed().shared();
            if let Some(weak) = refresh.downgrade() {
                running.insert(token.to_owned(), weak);
            }
            refresh
        })
    };
    let part = Part { refreshes: &service.refreshes, token, refresh: Some(refresh.clone()) };
    let refreshed = refresh.await;
    drop(part);
    refreshed
}

async fn refresh_alone(service: &AuthService, caller: &Caller, token: &str) -> Refreshed {
    let sessions = &service.options.sessions;
    if service.hook_call.is_none() && !sessions.single_per_user {
        let next = new_refresh_token();
        let limits = Rotation { timebox: sessions.timebox, inactivity: sessions.inactivity };
        if let Some((user, session)) = rotate(&service.database, caller, token, &next, &limits).await? {
            return service.answer(user, &session, next);
        }
    }
    Box::pin(refresh_locked(service, caller, token)).await
}

async fn refresh_locked(service: &AuthService, caller: &Caller, token: &str) -> Refreshed {
    let sessions = &service.options.sessions;
    let unknown = || {
        let message = "Invalid Refresh Token: Refresh Token Not Found";
        AuthApiError::bad_request("refresh_token_not_found", message)
    };
    let ended = || {
        let message = "Invalid Refresh Token: No Valid Session Found";
        AuthApiError::bad_request("session_not_found", message)
    };
    let tx = store::begin(&service.database).await?;
    let found = RefreshToken::find(&tx, token).await?.ok_or_else(unknown)?;
    // Refreshes of one session go one after the other from here on.
    let session = match found.session_id {
        Some(session) => Session::lock(&tx, session).await?.ok_or_else(ended)?,
        None => return Err(ended()),
    };
    let used = RefreshToken::find(&tx, token).await?.ok_or_else(unknown)?;
    let user = User::find(&tx, session.user_id).await?.ok_or_else(ended)?;
    let active = RefreshToken::active(&tx, session.id).await?;
    let newer = match sessions.single_per_user {
        true => Session::has_newer(&tx, &session).await?,
        false => false,
    };
    match decide(sessions, &user, &session, &used, active.as_ref(), newer, Utc::now()) {
        Decision::Rotate => {
            RefreshToken::revoke(&tx, used.id).await?;
            Session::refreshed(&tx, caller, session.id).await?;
            let answer = service.extend(&tx, user, session, METHOD, Some(&used.token)).await?;
            tx.commit().await?;
            Ok(answer)
        }
        Decision::Again(active) => {
            let answer = service.respond(&tx, user, &session, METHOD, active).await?;
            tx.commit().await?;
            Ok(answer)
        }
        Decision::Refuse(error) => Err(error),
        Decision::EndChain(error) => {
            tracing::warn!(session = %session.id, "a refresh token was used again: its session's chain ends");
            RefreshToken::revoke_all(&tx, session.id).await?;
            audit(&tx, caller, &user, Action::TokenRevoked, json!({ "session_id": session.id })).await?;
            tx.commit().await?;
            Err(error)
        }
    }
}

fn decide(
    options: &SessionOptions,
    user: &User,
    session: &Session,
    used: &RefreshToken,
    active: Option<&RefreshToken>,
    newer_session: bool,
    now: DateTime<Utc>,
) -> Decision {
    let refuse = |code, message| Decision::Refuse(AuthApiError::bad_request(code, message));
    let past = |since: DateTime<Utc>, limit: Option<Duration>| limit.is_some_and(|limit| now > since + limit);
    if user.is_banned(now) || user.deleted_at.is_some() {
        return refuse("user_banned", "Invalid Refresh Token: User Banned");
    }
    if session.not_after.is_some_and(|end| now > end) || past(session.created_at, options.timebox) {
        return refuse("session_expired", "Invalid Refresh Token: Session Expired");
    }
    let refreshed = session.refreshed_at.unwrap_or(session.created_at).max(used.updated_at);
    if past(refreshed, options.inactivity) {
        return refuse("session_expired", "Invalid Refresh Token: Session Expired (Inactivity)");
    }
    if newer_session {
        let message = "Invalid Refresh Token: Session Expired (Revoked by Newer Login)";
        return refuse("session_expired", message);
    }
    if !used.revoked {
        return Decision::Rotate;
    }
    let forgiven = |active: &&RefreshToken| {
        active.parent.as_deref() == Some(&used.token) || now <= used.updated_at + options.reuse_interval
    };
    if let Some(active) = active.filter(forgiven) {
        return Decision::Again(active.token.clone());
    }
    let message = "Invalid Refresh Token: Already Used";
    let error = AuthApiError::bad_request("refresh_token_already_used", message);
    if options.rotation { Decision::EndChain(error) } else { Decision::Refuse(error) }
}

impl AuthService {
    /// The answer where no hook takes part.
    fn answer(&self, user: User, session: &Session, token: String) -> Result<TokenResponse, AuthApiError> {
        let (claims, expires) = self.claims(&user, session);
        let access_token = self.signer.sign(&claims)?;
        Ok(TokenResponse::new(access_token, expires, token, user))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::Map;
    use uuid::Uuid;

    use super::*;
    use crate::service::store::Aal;

    const START: i64 = 1_000_000;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(START + seconds, 0).unwrap()
    }

    fn token(name: &str, revoked: bool, updated: i64, parent: Option<&str>) -> RefreshToken {
        RefreshToken {
            id: 1,
            token: name.into(),
            revoked,
            updated_at: at(updated),
            parent: parent.map(str::to_owned),
            session_id: Some(Uuid::nil()),
        }
    }

    fn session() -> Session {
        Session {
            id: Uuid::nil(),
            user_id: Uuid::nil(),
            created_at: at(0),
            aal: Aal::Aal1,
            not_after: None,
            refreshed_at: None,
            amr: Vec::new(),
        }
    }

    fn options() -> SessionOptions {
        SessionOptions {
            timebox: None,
            inactivity: None,
            single_per_user: false,
            rotation: true,
            reuse_interval: Duration::from_secs(10),
        }
    }

    fn user() -> User {
        User::blank(Uuid::nil(), Map::new())
    }

    fn name(decision: &Decision) -> String {
        match decision {
            Decision::Rotate => "rotate".into(),
            Decision::Again(token) => format!("again {token}"),
            Decision::Refuse(error) => format!("refuse {}", error.code()),
            Decision::EndChain(error) => format!("end {}", error.code()),
        }
    }

    /// A chain `a` → `b` → `c` in which `a` was used at 100 s, `b` at 200 s.
    #[rstest]
    #[case::newest(token("c", false, 200, Some("b")), 5_000, "rotate")]
    #[case::answer_was_lost(token("b", true, 200, Some("a")), 5_000, "again c")]
    #[case::at_the_same_time(token("a", true, 200, None), 210, "again c")]
    #[case::too_late(token("a", true, 200, None), 211, "end refresh_token_already_used")]
    #[case::much_too_late(token("a", true, 100, None), 5_000, "end refresh_token_already_used")]
    fn tokens_of_a_chain(#[case] used: RefreshToken, #[case] now: i64, #[case] expected: &str) {
        let newest = token("c", false, 200, Some("b"));
        let decision = decide(&options(), &user(), &session(), &used, Some(&newest), false, at(now));
        assert_eq!(name(&decision), expected);
    }

    #[test]
    fn an_ended_chain_stays_ended() {
        let used = token("c", true, 200, Some("b"));
        let decision = decide(&options(), &user(), &session(), &used, None, false, at(201));
        assert_eq!(name(&decision), "end refresh_token_already_used");
    }

    #[test]
    fn without_rotation_reuse_ends_nothing() {
        let options = SessionOptions { rotation: false, ..options() };
        let (used, newest) = (token("a", true, 100, None), token("c", false, 200, Some("b")));
        let decision = decide(&options, &user(), &session(), &used, Some(&newest), false, at(5_000));
        assert_eq!(name(&decision), "refuse refresh_token_already_used");
    }

    #[rstest]
    #[case::fine(|_: &mut _, _: &mut _, _: &mut _| (), false, "rotate")]
    #[case::banned(|user: &mut User, _: &mut _, _: &mut _| user.banned_until = Some(at(5_001)), false, "refuse user_banned")]
    #[case::ban_is_over(|user: &mut User, _: &mut _, _: &mut _| user.banned_until = Some(at(5_000)), false, "rotate")]
    #[case::deleted(|user: &mut User, _: &mut _, _: &mut _| user.deleted_at = Some(at(1)), false, "refuse user_banned")]
    #[case::ended(|_: &mut _, session: &mut Session, _: &mut _| session.not_after = Some(at(4_999)), false, "refuse session_expired")]
    #[case::timebox(|_: &mut _, _: &mut _, options: &mut SessionOptions| options.timebox = Some(Duration::from_secs(4_999)), false, "refuse session_expired")]
    #[case::in_time(|_: &mut _, _: &mut _, options: &mut SessionOptions| options.timebox = Some(Duration::from_secs(5_000)), false, "rotate")]
    #[case::inactive(|_: &mut _, _: &mut _, options: &mut SessionOptions| options.inactivity = Some(Duration::from_secs(4_799)), false, "refuse session_expired")]
    #[case::active(|_: &mut _, session: &mut Session, options: &mut SessionOptions| {
        session.refreshed_at = Some(at(4_000));
        options.inactivity = Some(Duration::from_secs(1_000));
    }, false, "rotate")]
    #[case::signed_in_elsewhere(|_: &mut _, _: &mut _, _: &mut _| (), true, "refuse session_expired")]
    fn sessions_end(
        #[case] change: fn(&mut User, &mut Session, &mut SessionOptions),
        #[case] newer: bool,
        #[case] expected: &str,
    ) {
        let (mut user, mut session, mut options) = (user(), session(), options());
        change(&mut user, &mut session, &mut options);
        let used = token("c", false, 200, Some("b"));
        let decision = decide(&options, &user, &session, &used, Some(&used), newer, at(5_000));
        assert_eq!(name(&decision), expected);
    }
}
