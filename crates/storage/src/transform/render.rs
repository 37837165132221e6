//! Decode, turn, resize, encode. Blocking: for a thread of its own.

use std::io::Cursor;

use fast_image_resize::images::Image;
use fast_image_resize::{FilterType, IntoImageView, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::codecs::gif::GifEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{DynamicImage, ImageDecoder, ImageEncoder, ImageFormat, ImageReader, Limits};

use super::options::{Format, Resize, Transform};
use super::{Rendered, refused};
use crate::Error;

/// Most pixels of a source: what the largest cameras of telephones take.
const PIXELS: u64 = 50_000_000;
/// Longest side of a source.
const SIDE: u32 = 20_000;
/// Bytes that decoding may take beside the image itself.
const DECODING: u64 = 512 * 1024 * 1024;
/// Quality where none is asked for.
const QUALITY: u8 = 80;
/// Effort for AVIF, 1–10: the fastest that is still smaller than WebP.
#[cfg(feature = "avif")]
const AVIF_SPEED: u8 = 9;

/// An image whose decoding is paid for.
struct Source {
    image: DynamicImage,
    format: ImageFormat,
    colours: Option<Vec<u8>>,
}

/// Makes an image of a source's bytes.
pub(super) fn render(
    source: &[u8],
    transform: &Transform,
    preferred: Option<Format>,
) -> Result<Rendered, Error> {
    let source = decode(source)?;
    let image = resized(source.image, transform)?;
    let quality = transform.quality.unwrap_or(QUALITY);
    encode(image, transform.format.or(preferred), (source.format, source.colours), quality)
}

fn invalid<E: std::fmt::Display>(error: E) -> Error {
    tracing::debug!(%error, "an image is not rendered");
    refused("The source image is invalid or unsupported for rendering")
}

fn decode(source: &[u8]) -> Result<Source, Error> {
    let reader = ImageReader::new(Cursor::new(source)).with_guessed_format().map_err(invalid)?;
    let format = reader.format().ok_or_else(|| invalid("unknown format"))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE);
    limits.max_image_height = Some(SIDE);
    limits.max_alloc = Some(DECODING);
    let mut reader = reader;
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| match error {
        image::ImageError::Limits(_) => too_large(),
        other => invalid(other),
    })?;
    let (width, height) = decoder.dimensions();
    // Bombs are told by their header: nothing is decoded before.
    if u64::from(width) * u64::from(height) > PIXELS || width == 0 || height == 0 {
        return Err(too_large());
    }
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    let colours = decoder.icc_profile().unwrap_or_default().filter(|profile| profile.len() < 1_000_000);
    let mut image = DynamicImage::from_decoder(decoder).map_err(invalid)?;
    image = if image.color().has_alpha() { image.into_rgba8().into() } else { image.into_rgb8().into() };
    image.apply_orientation(orientation);
    Ok(Source { image, format, colours })
}

fn too_large() -> Error {
    refused("The source image resolution is too large to process")
}

/// A size to draw, and the part of the source that goes into it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Plan {
    width: u32,
    height: u32,
    crop: Option<(f64, f64, f64, f64)>,
}

/// Nothing is made larger than it is.
fn plan(source: (u32, u32), transform: &Transform) -> Option<Plan> {
    let (width, height) = (f64::from(source.0), f64::from(source.1));
    let side = |length: f64| (length.round() as u32).max(1);
    let (box_width, box_height) = match (transform.width, transform.height) {
        (None, None) => return None,
        (Some(w), None) => (f64::from(w), f64::from(w) * height / width),
        (None, Some(h)) => (f64::from(h) * width / height, f64::from(h)),
        (Some(w), Some(h)) => (f64::from(w), f64::from(h)),
    };
    let planned = match transform.resize {
        Resize::Fill => {
            Plan { width: side(box_width.min(width)), height: side(box_height.min(height)), crop: None }
        }
        Resize::Contain => {
            let scale = (box_width / width).min(box_height / height).min(1.0);
            Plan { width: side(width * scale), height: side(height * scale), crop: None }
        }
        Resize::Cover => {
            let scale = (box_width / width).max(box_height / height).min(1.0);
            // As much of the source as the box shows, from the middle.
            let (shown_width, shown_height) =
                ((box_width / scale).min(width), (box_height / scale).min(height));
            let crop =
                ((width - shown_width) / 2.0, (height - shown_height) / 2.0, shown_width, shown_height);
            let whole = shown_width > width - 0.5 && shown_height > height - 0.5;
            Plan {
                width: side(shown_width * scale),
                height: side(shown_height * scale),
                crop: (!whole).then_some(crop),
            }
        }
    };
    let same = planned.crop.is_none() && (planned.width, planned.height) == source;
    (!same).then_some(planned)
}

fn resized(source: DynamicImage, transform: &Transform) -> Result<DynamicImage, Error> {
    let Some(plan) = plan((source.width(), source.height()), transform) else { return Ok(source) };
    let pixels = source.pixel_type().ok_or_else(|| invalid("unknown pixels"))?;
    let mut drawn = Image::new(plan.width, plan.height, pixels);
    let mut options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    if let Some((left, top, width, height)) = plan.crop {
        options = options.crop(left, top, width, height);
    }
    Resizer::new().resize(&source, &mut drawn, &options).map_err(invalid)?;
    let bytes = drawn.into_vec();
    let image = match pixels {
        PixelType::U8x4 => image::RgbaImage::from_raw(plan.width, plan.height, bytes).map(DynamicImage::from),
        _ => image::RgbImage::from_raw(plan.width, plan.height, bytes).map(DynamicImage::from),
    };
    image.ok_or_else(|| invalid("the drawn image has another size"))
}

fn encode(
    image: DynamicImage,
    wanted: Option<Format>,
    (origin, colours): (ImageFormat, Option<Vec<u8>>),
    quality: u8,
) -> Result<Rendered, Error> {
    let target = match wanted {
        Some(Format::Avif) => ImageFormat::Avif,
        Some(Format::WebP) => ImageFormat::WebP,
        Some(Format::Jpeg) => ImageFormat::Jpeg,
        Some(Format::Png) => ImageFormat::Png,
        Some(Format::Origin) | None => origin,
    };
    let mut bytes = Vec::new();
    let mimetype = match target {
        ImageFormat::Avif => {
            bytes = avif(&image, quality)?;
            "image/avif"
        }
        ImageFormat::WebP => {
            bytes = webp(&image, quality)?;
            "image/webp"
        }
        ImageFormat::Png => {
            let mut encoder = PngEncoder::new(&mut bytes);
            if let Some(colours) = colours {
                encoder.set_icc_profile(colours).map_err(invalid)?;
            }
            image.write_with_encoder(encoder).map_err(invalid)?;
            "image/png"
        }
        ImageFormat::Gif => {
            let image = image.into_rgba8();
            let (width, height) = image.dimensions();
            let mut encoder = GifEncoder::new_with_speed(&mut bytes, 10);
            encoder.encode(&image, width, height, image::ExtendedColorType::Rgba8).map_err(invalid)?;
            drop(encoder);
            "image/gif"
        }
        _ => {
            let mut encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
            if let Some(colours) = colours {
                encoder.set_icc_profile(colours).map_err(invalid)?;
            }
            on_white(image).write_with_encoder(encoder).map_err(invalid)?;
            "image/jpeg"
        }
    };
    Ok(Rendered { bytes: bytes.into(), mimetype })
}

/// What a format that cannot be seen through shows.
fn on_white(image: DynamicImage) -> image::RgbImage {
    let DynamicImage::ImageRgba8(pixels) = image else { return image.into_rgb8() };
    image::RgbImage::from_fn(pixels.width(), pixels.height(), |x, y| {
        let [red, green, blue, alpha] = pixels.get_pixel(x, y).0.map(u16::from);
        let over = |colour: u16| ((colour * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        image::Rgb([over(red), over(green), over(blue)])
    })
}

fn webp(image: &DynamicImage, quality: u8) -> Result<Vec<u8>, Error> {
    let (width, height) = (image.width(), image.height());
    let encoder = match image {
        DynamicImage::ImageRgba8(pixels) => webp::Encoder::from_rgba(pixels, width, height),
        DynamicImage::ImageRgb8(pixels) => webp::Encoder::from_rgb(pixels, width, height),
        _ => return Err(invalid("unknown pixels")),
    };
    let encoded = encoder.encode_simple(false, f32::from(quality));
    let encoded = encoded.map_err(|error| invalid(format!("{error:?}")))?;
    Ok(encoded.to_vec())
}

#[cfg(feature = "avif")]
fn avif(image: &DynamicImage, quality: u8) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::avif::AvifEncoder::new_with_speed_quality(&mut bytes, AVIF_SPEED, quality);
    image.write_with_encoder(encoder.with_num_threads(Some(1))).map_err(invalid)?;
    Ok(bytes)
}

#[cfg(not(feature = "avif"))]
fn avif(_: &DynamicImage, _: u8) -> Result<Vec<u8>, Error> {
    Err(refused("format: this server was built without AVIF, ask for webp"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    #[test]
    fn what_is_clear_becomes_white() {
        let pixels = [[9, 9, 9, 0], [10, 20, 30, 255], [0, 0, 0, 128]].concat();
        let image = image::RgbaImage::from_raw(3, 1, pixels).unwrap();
        assert_eq!(on_white(image.into()).into_raw(), [255, 255, 255, 10, 20, 30, 127, 127, 127]);
    }

    use super::*;

    fn asking(width: u32, height: u32, resize: Resize) -> Transform {
        let side = |side| (side > 0).then_some(side);
        Transform { width: side(width), height: side(height), resize, ..Transform::default() }
    }

    #[rstest]
    #[case((400, 200), asking(100, 100, Resize::Contain), Some((100, 50)))]
    #[case((400, 200), asking(100, 100, Resize::Cover), Some((100, 100)))]
    #[case((400, 200), asking(100, 100, Resize::Fill), Some((100, 100)))]
    #[case((400, 200), asking(100, 0, Resize::Cover), Some((100, 50)))]
    #[case((400, 200), asking(0, 100, Resize::Cover), Some((200, 100)))]
    #[case((400, 200), asking(800, 800, Resize::Contain), None)]
    #[case((400, 200), asking(800, 100, Resize::Cover), Some((400, 100)))]
    #[case((400, 200), asking(800, 800, Resize::Fill), None)]
    #[case((400, 200), asking(0, 0, Resize::Cover), None)]
    #[case((20_000, 2), asking(100, 100, Resize::Contain), Some((100, 1)))]
    fn sizes(#[case] source: (u32, u32), #[case] transform: Transform, #[case] drawn: Option<(u32, u32)>) {
        assert_eq!(plan(source, &transform).map(|plan| (plan.width, plan.height)), drawn);
    }

    #[test]
    fn covering_shows_the_middle() {
        let planned = plan((400, 200), &asking(100, 100, Resize::Cover)).unwrap();
        assert_eq!(planned.crop, Some((100.0, 0.0, 200.0, 200.0)));
    }
}
