//! `longhouse.mfa_recovery_codes`: hashes of codes that stand in for a lost second factor.

use longhouse_database::Error;
use uuid::Uuid;

use super::Tx;

/// Replaces an account's codes.
pub(crate) async fn replace(tx: &Tx, user: Uuid, hashes: &[Vec<u8>]) -> Result<(), Error> {
    delete(tx, user).await?;
    let sql = "insert into longhouse.mfa_recovery_codes (user_id, hash) select $1, unnest($2::bytea[])";
    tx.execute(sql, &[&user, &hashes]).await.map(drop)
}

/// Uses a code up. False when there is no such code, or it was used.
pub(crate) async fn take(tx: &Tx, user: Uuid, hash: &[u8]) -> Result<bool, Error> {
    let sql = "update longhouse.mfa_recovery_codes set used_at = now()
        where user_id = $1 and hash = $2 and used_at is null";
    Ok(tx.execute(sql, &[&user, &hash]).await? > 0)
}

/// How many are left.
pub(crate) async fn left(tx: &Tx, user: Uuid) -> Result<i64, Error> {
    let sql = "select count(*) from longhouse.mfa_recovery_codes where user_id = $1 and used_at is null";
    Ok(tx.query_opt(sql, &[&user]).await?.map_or(0, |row| row.get(0)))
}

/// Ends all of an account.
pub(crate) async fn delete(tx: &Tx, user: Uuid) -> Result<(), Error> {
    tx.execute("delete from longhouse.mfa_recovery_codes where user_id = $1", &[&user]).await.map(drop)
}
