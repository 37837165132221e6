//! People who come with the dump of a Supabase project.

use rstest::rstest;
use serde_json::json;

use crate::harness::TestAuth;

/// Rows as GoTrue leaves them, tokens empty or null.
const ANN: &str =
    "insert into auth.users (instance_id, id, aud, role, email, encrypted_password, email_confirmed_at,
      raw_app_meta_data, raw_user_meta_data, created_at, updated_at, confirmation_token, recovery_token,
      email_change_token_new, email_change)
    values ('00000000-0000-0000-0000-000000000000', '11111111-1111-4111-8111-111111111111', 'authenticated',
      'authenticated', 'ann@example.com', $1, now(), '{\"provider\": \"email\", \"providers\": [\"email\"]}',
      '{\"name\": \"Ann\"}', now(), now(), '', '', '', '')";
const IDENTITY: &str = "insert into auth.identities (provider_id, user_id, identity_data, provider, last_sign_in_at,
      created_at, updated_at)
    select id::text, id, jsonb_build_object('sub', id, 'email', email), 'email', now(), now(), now() from auth.users";

#[rstest]
#[case::crypt_of_c("$2a$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2", "correct horse")]
#[case::argon2id(
    "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
    "password"
)]
#[case::firebase(
    "$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk=jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA==$42xEC+ixf3L2lw==$lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ==",
    "user1password"
)]
#[tokio::test]
async fn their_password_hashes_work(#[case] hash: &str, #[case] password: &str) {
    let auth = TestAuth::start().await;
    auth.sql.execute(ANN, &[&hash]).await.unwrap();
    auth.sql.execute(IDENTITY, &[]).await.unwrap();
    assert_eq!(auth.sign_in("ann@example.com", "wrong password").await.code(), "invalid_credentials");
    let session = auth.sign_in("ann@example.com", password).await;
    assert_eq!(session.status, 200, "{}", session.text);
    assert_eq!(session.body["user"]["id"], "11111111-1111-4111-8111-111111111111");
    assert_eq!(session.body["user"]["user_metadata"], json!({ "name": "Ann" }));
}

#[tokio::test]
async fn their_sessions_go_on() {
    let auth = TestAuth::start().await;
    auth.sql.execute(ANN, &[&""]).await.unwrap();
    let sql = "insert into auth.sessions (id, user_id, created_at, updated_at, aal)
          select gen_random_uuid(), id, now(), now(), 'aal1' from auth.users;
        insert into auth.refresh_tokens (instance_id, token, user_id, revoked, created_at, updated_at, session_id)
          select '00000000-0000-0000-0000-000000000000', 'abcdef123456', user_id::text, false, now(), now(), id
          from auth.sessions";
    auth.sql.batch_execute(sql).await.unwrap();
    let body = json!({ "refresh_token": "abcdef123456" });
    let session = auth.post("/token?grant_type=refresh_token", body).await;
    assert_eq!(session.status, 200, "{}", session.text);
    assert_eq!(session.body["user"]["email"], "ann@example.com");
}
