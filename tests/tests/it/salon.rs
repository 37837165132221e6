//! The receptionist's tables and functions over `/rest/v1`, through supabase-js.

use crate::binary::Server;
use crate::clients::script;

#[tokio::test]
async fn a_business_is_run_over_rest() {
    let server = Server::start().await;
    script(&server, "salon", &[]).await;
}
