//! Images in other sizes and formats.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageEncoder, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use reqwest::{Method, Response};
use rstest::rstest;
use serde_json::json;

use crate::harness::{ANN, ANN_, As, BOB_, TestStorage, answer};

/// 400 × 200: red on the left, green in the middle half, blue on the right.
fn stripes() -> RgbImage {
    RgbImage::from_fn(400, 200, |x, _| match x {
        0..100 => Rgb([220, 20, 20]),
        100..300 => Rgb([20, 200, 20]),
        _ => Rgb([20, 20, 220]),
    })
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A JPEG whose camera was turned: what is stored is to be turned a quarter to the right.
fn turned() -> Vec<u8> {
    let exif = [
        b"II*\0\x08\0\0\0\x01\0".as_slice(),
        b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0", // orientation, one short: 6
        b"\0\0\0\0",
    ];
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 95);
    encoder.set_exif_metadata(exif.concat()).unwrap();
    stripes().write_with_encoder(encoder).unwrap();
    bytes
}

impl TestStorage {
    async fn picture(&self, path: &str, bytes: Vec<u8>) {
        let request = self.request(As::Service, Method::POST, &format!("/object/{path}"));
        let request = request.header("content-type", "image/png").header("x-upsert", "true").body(bytes);
        assert_eq!(answer(request.send().await.unwrap()).await.0, 200);
    }

    async fn render(&self, path: &str) -> Response {
        self.get(As::Nobody, &format!("/render/image/public/pictures/{path}")).await
    }
}

async fn shown(response: Response) -> (String, DynamicImage) {
    assert_eq!(response.status(), 200);
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    (kind, image::load_from_memory(&response.bytes().await.unwrap()).unwrap())
}

/// Which of the three colours a pixel has.
fn colour(image: &DynamicImage, x: u32, y: u32) -> char {
    let Rgb([red, green, blue]) = *image.to_rgb8().get_pixel(x, y);
    match (red > 120, green > 120, blue > 120) {
        (true, false, false) => 'r',
        (false, true, false) => 'g',
        (false, false, true) => 'b',
        _ => '?',
    }
}

#[rstest]
#[case(ImageFormat::Png, "image/png")]
#[case(ImageFormat::Jpeg, "image/jpeg")]
#[case(ImageFormat::WebP, "image/webp")]
#[case(ImageFormat::Gif, "image/gif")]
#[tokio::test]
async fn images_are_resized_and_keep_their_format(#[case] format: ImageFormat, #[case] kind: &str) {
    let app = TestStorage::start().await;
    app.picture("pictures/a", encoded(&stripes().into(), format)).await;
    let (sent, cover) = shown(app.render("a?width=100&height=100").await).await;
    assert_eq!((sent.as_str(), cover.width(), cover.height()), (kind, 100, 100));
    assert_eq!((colour(&cover, 3, 50), colour(&cover, 96, 50)), ('g', 'g'), "the middle is shown");
    let (_, contain) = shown(app.render("a?width=100&height=100&resize=contain").await).await;
    assert_eq!((contain.width(), contain.height()), (100, 50));
    assert_eq!(
        (colour(&contain, 5, 25), colour(&contain, 50, 25), colour(&contain, 95, 25)),
        ('r', 'g', 'b')
    );
    let (_, fill) = shown(app.render("a?width=100&height=100&resize=fill").await).await;
    assert_eq!((fill.width(), fill.height(), colour(&fill, 5, 50)), (100, 100, 'r'));
    let (_, narrow) = shown(app.render("a?width=40").await).await;
    assert_eq!((narrow.width(), narrow.height()), (40, 20));
    let (_, whole) = shown(app.render("a?width=4000").await).await;
    assert_eq!((whole.width(), whole.height()), (400, 200), "nothing is made larger");
}

#[tokio::test]
async fn clients_get_what_they_take() {
    let app = TestStorage::start().await;
    app.picture("pictures/a", encoded(&stripes().into(), ImageFormat::Png)).await;
    let kind = async |query: &str, accept: &'static str| {
        let request =
            app.request(As::Nobody, Method::GET, &format!("/render/image/public/pictures/a?{query}"));
        let response = request.header("accept", accept).send().await.unwrap();
        assert_eq!(response.headers()["vary"].to_str().unwrap().split(',').next(), Some("accept"));
        response.headers()["content-type"].to_str().unwrap().to_owned()
    };
    assert_eq!(kind("width=50", "image/avif,image/webp,*/*;q=0.8").await, "image/webp");
    assert_eq!(kind("width=50&format=origin", "image/webp").await, "image/png");
    assert_eq!(kind("width=50", "image/png,*/*").await, "image/png");
    assert_eq!(kind("width=50&format=webp", "*/*").await, "image/webp");
    assert_eq!(kind("width=50&format=avif", "*/*").await, "image/avif");
    assert_eq!(kind("width=50&format=jpeg", "image/webp").await, "image/jpeg");
    assert_eq!(kind("width=50&format=png", "image/webp").await, "image/png");
    let size = async |quality: u8| {
        let response = app.render(&format!("noise?quality={quality}&format=webp")).await;
        response.content_length().unwrap()
    };
    let noise =
        RgbImage::from_fn(200, 200, |x, y| Rgb([(x * 7 + y * y) as u8, (x * y) as u8, (x ^ y) as u8]));
    app.picture("pictures/noise", encoded(&noise.into(), ImageFormat::Png)).await;
    assert!(size(20).await < size(90).await);
}

#[tokio::test]
async fn cameras_may_be_turned_and_colours_be_seen_through() {
    let app = TestStorage::start().await;
    app.picture("pictures/turned.jpg", turned()).await;
    let (kind, image) = shown(app.render("turned.jpg?width=100").await).await;
    assert_eq!((kind.as_str(), image.width(), image.height()), ("image/jpeg", 100, 200));
    assert_eq!((colour(&image, 50, 10), colour(&image, 50, 190)), ('r', 'b'), "what was left is above");
    let glass = RgbaImage::from_fn(40, 40, |x, _| Rgba([255, 0, 0, if x < 20 { 0 } else { 255 }]));
    app.picture("pictures/glass.png", encoded(&glass.into(), ImageFormat::Png)).await;
    for format in ["origin", "webp"] {
        let (_, image) = shown(app.render(&format!("glass.png?width=20&format={format}")).await).await;
        let image = image.to_rgba8();
        assert!(image.get_pixel(2, 10)[3] < 20 && image.get_pixel(17, 10)[3] > 235, "{format}");
    }
}

#[tokio::test]
async fn who_may_see_it_may_see_it_smaller() {
    let app = TestStorage::start().await;
    let path = format!("files/{ANN}/a.png");
    app.picture(&path, encoded(&stripes().into(), ImageFormat::Png)).await;
    let render = async |who: As| app.get(who, &format!("/render/image/authenticated/{path}?width=50")).await;
    assert_eq!(shown(render(ANN_).await).await.1.width(), 50);
    for who in [BOB_, As::Anon] {
        assert_eq!(answer(render(who).await).await.0, 404);
    }
    assert_eq!(answer(render(As::Nobody).await).await.0, 403);
    let public = app.get(ANN_, &format!("/render/image/public/{path}?width=50")).await;
    assert_eq!(answer(public).await.0, 404, "its bucket is not public");
}

#[tokio::test]
async fn signed_urls_show_what_was_signed() {
    let app = TestStorage::start().await;
    let path = format!("files/{ANN}/a.png");
    app.picture(&path, encoded(&stripes().into(), ImageFormat::Png)).await;
    let body = json!({"expiresIn": 60, "transform": {"width": 60, "height": 60, "resize": "contain", "quality": 80}});
    let (_, signed) = app.call(ANN_, "POST", &format!("/object/sign/{path}"), body).await;
    let url = signed["signedURL"].as_str().unwrap();
    assert!(url.starts_with(&format!("/render/image/sign/{path}?token=")), "{url}");
    // Neither can anything else be asked for, nor the whole be had.
    let response = app.get(As::Nobody, &format!("{url}&width=300&resize=fill&download=small.png")).await;
    assert!(response.headers()["expires"].to_str().unwrap().ends_with("GMT"));
    assert!(response.headers()["content-disposition"].to_str().unwrap().contains("small.png"));
    let (_, image) = shown(response).await;
    assert_eq!((image.width(), image.height()), (60, 30));
    let whole = app.get(As::Nobody, &url.replace("/render/image/sign/", "/object/sign/")).await;
    assert_eq!(answer(whole).await.1["error"], "InvalidSignature");
    let other = app.get(As::Nobody, &url.replace("a.png", "b.png")).await;
    assert_eq!(answer(other).await.1["error"], "InvalidSignature");
    let nonsense = json!({"expiresIn": 60, "transform": {"quality": 7}});
    assert_eq!(app.call(ANN_, "POST", &format!("/object/sign/{path}"), nonsense).await.0, 400);
}

#[tokio::test]
async fn replaced_images_are_made_anew() {
    let app = TestStorage::start().await;
    app.picture("pictures/a", encoded(&stripes().into(), ImageFormat::Png)).await;
    let first = app.render("a?width=50").await;
    let etag = first.headers()["etag"].clone();
    assert_eq!(shown(first).await.1.height(), 25);
    let again = app.request(As::Nobody, Method::GET, "/render/image/public/pictures/a?width=50");
    let again = again.header("if-none-match", &etag).send().await.unwrap();
    assert_eq!(again.status(), 304);
    let other = app.render("a?width=51").await;
    assert_ne!(other.headers()["etag"], etag);
    let square: DynamicImage = RgbImage::from_pixel(90, 90, Rgb([1, 2, 3])).into();
    app.picture("pictures/a", encoded(&square, ImageFormat::Png)).await;
    let new = app.render("a?width=50").await;
    assert_ne!(new.headers()["etag"], etag);
    assert_eq!(shown(new).await.1.height(), 50);
}

#[rstest]
#[case::text(b"hello world".to_vec(), "unsupported")]
#[case::nothing(Vec::new(), "unsupported")]
#[case::cut_off(encoded(&stripes().into(), ImageFormat::Png)[..90].to_vec(), "unsupported")]
// A header that promises 65,535 × 65,535 pixels: 17 GB in memory.
#[case::bomb(b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;".to_vec(), "too large")]
#[case::vectors(b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>".to_vec(), "unsupported")]
#[tokio::test]
async fn what_is_no_image_is_refused(#[case] bytes: Vec<u8>, #[case] message: &str) {
    let app = TestStorage::start().await;
    app.picture("pictures/a", bytes).await;
    let (status, body) = answer(app.render("a?width=50").await).await;
    assert_eq!(status, 400);
    assert!(body["message"].as_str().unwrap().contains(message), "{body}");
    let (status, body) = answer(app.render("a?width=x").await).await;
    assert_eq!((status, body["message"].as_str()), (400, Some("querystring/width must be integer >= 0")));
}
