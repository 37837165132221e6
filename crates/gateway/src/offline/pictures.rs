//! Pictures drawn from the words of a prompt: a landscape with a sky, hills, a light and its hero as a simple shape.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat as File, Rgb, RgbImage};

use super::words::{hash, words};
use crate::images::{ImageFormat, ImageRequest};

/// Largest side.
const MOST_SIDE: u32 = 1_536;

type Colour = [f32; 3];

struct Scene {
    top: Colour,
    bottom: Colour,
    hills: Colour,
    light: Colour,
    stars: bool,
    water: bool,
}

/// Words that set the scene.
fn scene(prompt: &str, seed: u64) -> Scene {
    let said: Vec<String> = words(prompt).collect();
    let says = |list: &[&str]| said.iter().any(|word| list.contains(&word.as_str()));
    let night = says(&["night", "moon", "stars", "midnight", "sleep", "bedtime", "evening", "dream"]);
    let water = says(&["sea", "ocean", "lake", "river", "beach", "water", "boat", "ship", "island"]);
    let wood = says(&["forest", "wood", "woods", "tree", "trees", "jungle", "garden", "meadow"]);
    let snow = says(&["snow", "winter", "ice", "polar", "mountain"]);
    let desert = says(&["desert", "sand", "sun", "summer", "city", "castle"]);
    // Each prompt has a tint of its own.
    let tint = |base: Colour, turn: u32| -> Colour {
        std::array::from_fn(|i| {
            let shift = ((seed.rotate_left(turn + 8 * i as u32) & 0x1f) as f32 - 15.5) * 1.6;
            (base[i] + shift).clamp(0.0, 255.0)
        })
    };
    let (top, bottom) = if night {
        ([24.0, 30.0, 78.0], [112.0, 96.0, 158.0])
    } else if desert {
        ([255.0, 190.0, 120.0], [255.0, 232.0, 190.0])
    } else {
        ([112.0, 178.0, 236.0], [228.0, 242.0, 252.0])
    };
    let hills = if snow {
        [226.0, 236.0, 244.0]
    } else if wood {
        [64.0, 132.0, 84.0]
    } else if desert {
        [214.0, 164.0, 104.0]
    } else {
        [112.0, 168.0, 98.0]
    };
    let light = if night { [250.0, 244.0, 210.0] } else { [255.0, 222.0, 120.0] };
    Scene { top: tint(top, 0), bottom: tint(bottom, 5), hills: tint(hills, 11), light, stars: night, water }
}

/// Draws. The same prompt, seed and index make the same picture.
pub(super) fn draw(request: &ImageRequest, index: u64) -> Result<(&'static str, Vec<u8>), String> {
    let (width, height) = request.size.unwrap_or((1_024, 1_024));
    let (width, height) = (width.clamp(64, MOST_SIDE), height.clamp(64, MOST_SIDE));
    let seed =
        hash(&request.prompt) ^ request.seed.unwrap_or(0).rotate_left(32) ^ index.wrapping_mul(0x9e37_79b9);
    let scene = scene(&request.prompt, seed);
    let mut picture = RgbImage::new(width, height);
    let (w, h) = (width as f32, height as f32);
    let unit = w.min(h);
    let part = |turn: u32| (seed.rotate_left(turn) & 0xffff) as f32 / 65_535.0;
    let light = (w * (0.2 + 0.6 * part(9)), h * (0.14 + 0.16 * part(23)), unit * 0.09);
    let hero = (w * (0.3 + 0.4 * part(31)), h * 0.74, unit * 0.07);
    let stars: Vec<(f32, f32)> =
        (0..60).map(|n| (w * part(n * 7 + 1), h * 0.55 * part(n * 11 + 3))).filter(|_| scene.stars).collect();
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        let (x, y) = (x as f32, y as f32);
        let mut colour = mix(scene.top, scene.bottom, y / h);
        let glow = distance((x, y), (light.0, light.1)) / light.2;
        colour = mix(scene.light, colour, (glow - 1.0).clamp(0.0, 1.0).powf(0.4));
        if stars.iter().any(|star| distance((x, y), *star) < unit * 0.0025) {
            colour = [255.0, 252.0, 230.0];
        }
        for layer in 0..3_u32 {
            let depth = layer as f32 / 3.0;
            let wave = ((x / w * (2.5 + depth * 2.0) + part(layer * 13) * 6.0) * 2.2).sin();
            let edge = h * (0.58 + depth * 0.17) + wave * unit * (0.06 - depth * 0.012);
            if y > edge {
                let shade = 1.0 - depth * 0.22;
                colour = std::array::from_fn(|i| scene.hills[i] * shade);
                if scene.water && layer == 1 {
                    let ripple = ((y * 0.35).sin() * 6.0) + ((x + y) * 0.02).sin() * 4.0;
                    colour = [72.0 + ripple, 136.0 + ripple, 196.0 + ripple];
                }
            }
        }
        // Two round figures, because nobody is out there without company.
        for (offset, size, tone) in [(-0.7, 1.0, part(41)), (0.75, 0.8, part(53))] {
            let centre = (hero.0 + offset * hero.2 * 1.6, hero.1);
            let body = distance((x, (y - centre.1) * 0.8 + centre.1), centre) < hero.2 * size;
            let head = distance((x, y), (centre.0, centre.1 - hero.2 * size * 1.35)) < hero.2 * size * 0.62;
            if body || head {
                let warm = [236.0, 150.0 + 60.0 * tone, 110.0 + 90.0 * (1.0 - tone)];
                colour = if head { mix(warm, [255.0; 3], 0.25) } else { warm };
            }
        }
        *pixel = Rgb(colour.map(|part| part.clamp(0.0, 255.0) as u8));
    }
    mark(&mut picture);
    let (mime, file) = match request.format {
        ImageFormat::Png => ("image/png", File::Png),
        ImageFormat::Jpeg => ("image/jpeg", File::Jpeg),
        ImageFormat::Webp => ("image/webp", File::WebP),
    };
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(picture).write_to(&mut bytes, file).map_err(|error| error.to_string())?;
    Ok((mime, bytes.into_inner()))
}

fn mix(a: Colour, b: Colour, part: f32) -> Colour {
    let part = part.clamp(0.0, 1.0);
    std::array::from_fn(|i| a[i] + (b[i] - a[i]) * part)
}

fn distance(a: (f32, f32), b: (f32, f32)) -> f32 {
    (a.0 - b.0).hypot(a.1 - b.1)
}

/// Writes OFFLINE into the corner, so that nobody takes it for a model's work.
fn mark(picture: &mut RgbImage) {
    // Five columns a letter, the top row in the lowest bit.
    const LETTERS: [[u8; 5]; 7] = [
        [0x3e, 0x41, 0x41, 0x41, 0x3e],
        [0x7f, 0x09, 0x09, 0x09, 0x01],
        [0x7f, 0x09, 0x09, 0x09, 0x01],
        [0x7f, 0x40, 0x40, 0x40, 0x40],
        [0x00, 0x41, 0x7f, 0x41, 0x00],
        [0x7f, 0x04, 0x08, 0x10, 0x7f],
        [0x7f, 0x49, 0x49, 0x49, 0x41],
    ];
    let (width, height) = picture.dimensions();
    let dot = (width.min(height) / 256).max(1);
    let (left, top) = (width.saturating_sub(dot * 45), height.saturating_sub(dot * 10));
    for (letter, columns) in (0_u32..).zip(LETTERS) {
        for (column, bits) in (0_u32..).zip(columns) {
            for row in (0..7_u32).filter(|row| bits >> row & 1 == 1) {
                let (x, y) = (left + (letter * 6 + column) * dot, top + row * dot);
                for (dx, dy) in (0..dot).flat_map(|dx| (0..dot).map(move |dy| (dx, dy))) {
                    if let Some(pixel) = picture.get_pixel_mut_checked(x + dx, y + dy) {
                        *pixel = Rgb([255, 255, 255]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_has_its_own_picture() {
        let draw = |prompt: &str, format| {
            let request = ImageRequest { size: Some((96, 64)), format, ..ImageRequest::new(prompt) };
            super::draw(&request, 0).unwrap()
        };
        let fox = draw("A fox by the sea at night", ImageFormat::Png);
        assert_eq!(fox, draw("A fox by the sea at night", ImageFormat::Png));
        assert_ne!(fox, draw("A hen in the desert", ImageFormat::Png));
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Webp] {
            let (_, bytes) = draw("A fox", format);
            let decoded = image::load_from_memory(&bytes).unwrap();
            assert_eq!((decoded.width(), decoded.height()), (96, 64));
        }
    }
}
