//! The pages as a browser gets them; without them in the build, what a person reads instead.

use reqwest::Method;

use crate::harness::TestStudio;

#[tokio::test]
async fn every_address_is_the_page_and_nothing_else_is_allowed_in_it() {
    let studio = TestStudio::start().await;
    let home = studio.send(Method::GET, "/", None, None).await;
    assert_eq!((home.status, home.headers["location"].to_str().unwrap()), (307, "/studio"));
    for path in ["/studio", "/studio/", "/studio/tables/public/notes"] {
        let page = studio.send(Method::GET, path, None, None).await;
        assert!(page.headers["content-type"].to_str().unwrap().starts_with("text/html"), "{path}");
        if longhouse_studio::built() {
            assert_eq!(page.status, 200, "{path}");
            assert_eq!(page.headers["cache-control"], "no-cache");
            let policy = page.headers["content-security-policy"].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'; script-src 'self' 'sha256-"), "{policy}");
            assert!(!policy.contains("unsafe-inline") && !policy.contains("http"), "{policy}");
        } else {
            assert_eq!(page.status, 503, "{path}");
        }
    }
    let unknown = studio.send(Method::GET, "/studio/v1/nothing", None, None).await;
    assert_eq!(unknown.status, 404);
    let gone = studio.send(Method::GET, "/studio/_app/immutable/gone.js", None, None).await;
    assert_eq!((gone.status, gone.headers["cache-control"].to_str().unwrap()), (404, "no-store"));
}
