//! What a client may ask for.

use http::HeaderMap;
use http::header::ACCEPT;
use serde_json::Value;
use url::form_urlencoded;

use crate::Error;

/// Longest side of an outcome.
const LONGEST: u32 = 2500;

/// How the image goes into a box of another shape.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Resize {
    /// Fills the box; what projects is cut off.
    #[default]
    Cover,
    /// Fits into the box.
    Contain,
    /// Becomes the box, in whatever proportions.
    Fill,
}

/// A format to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// AV1 in a still image.
    Avif,
    /// WebP.
    WebP,
    /// JPEG; what can be seen through becomes white.
    Jpeg,
    /// PNG.
    Png,
    /// Whatever the source is.
    Origin,
}

/// A change of an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Transform {
    /// Width of the box.
    pub width: Option<u32>,
    /// Its height.
    pub height: Option<u32>,
    /// How to fit.
    pub resize: Resize,
    /// 20–100, of formats that lose something.
    pub quality: Option<u8>,
    /// Unset: the client's preference, else the source's.
    pub format: Option<Format>,
}

impl Transform {
    /// Reads a query string; what is no transformation is passed over.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] naming the parameter.
    pub fn from_query(query: &str) -> Result<Self, Error> {
        let mut transform = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            transform.set("querystring", &name, &value)?;
        }
        Ok(transform)
    }

    /// Reads the `transform` of a request for a signed URL.
    ///
    /// # Errors
    /// As [`Self::from_query`].
    pub fn from_json(value: &Value) -> Result<Self, Error> {
        let Value::Object(fields) = value else {
            return Err(Error::InvalidRequest("body/transform must be object".into()));
        };
        let mut transform = Self::default();
        for (name, value) in fields {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Null => continue,
                other => other.to_string(),
            };
            transform.set("body/transform", name, &text)?;
        }
        Ok(transform)
    }

    /// Reads what [`Self::claim`] wrote.
    ///
    /// # Errors
    /// As [`Self::from_query`].
    pub fn from_claim(text: &str) -> Result<Self, Error> {
        let mut transform = Self::default();
        for (name, value) in text.split(',').filter_map(|part| part.split_once(':')) {
            transform.set("token", name, value)?;
        }
        Ok(transform)
    }

    /// For a token: `height:50,width:100,resize:cover,quality:80`. Unset where nothing is to be changed.
    pub fn claim(&self) -> Option<String> {
        self.described("resize", |resize| match resize {
            Resize::Cover => "cover",
            Resize::Contain => "contain",
            Resize::Fill => "fill",
        })
    }

    /// What was done, in a response's `x-transformations`: in the words of imgproxy, which clients of Supabase know.
    pub fn applied(&self) -> Option<String> {
        self.described("resizing_type", |resize| match resize {
            Resize::Cover => "fill",
            Resize::Contain => "fit",
            Resize::Fill => "force",
        })
    }

    fn described(&self, fitting: &str, word: fn(Resize) -> &'static str) -> Option<String> {
        let mut parts = Vec::new();
        let sides = [("height", self.height), ("width", self.width)];
        parts.extend(sides.into_iter().filter_map(|(name, side)| Some(format!("{name}:{}", side?))));
        if !parts.is_empty() {
            parts.push(format!("{fitting}:{}", word(self.resize)));
        }
        parts.extend(self.quality.map(|quality| format!("quality:{quality}")));
        parts.extend(self.format.map(|format| match format {
            Format::Avif => "format:avif".to_owned(),
            Format::WebP => "format:webp".to_owned(),
            Format::Jpeg => "format:jpeg".to_owned(),
            Format::Png => "format:png".to_owned(),
            Format::Origin => "format:origin".to_owned(),
        }));
        (!parts.is_empty()).then(|| parts.join(","))
    }

    fn set(&mut self, place: &str, name: &str, value: &str) -> Result<(), Error> {
        let invalid = |text: &str| Error::InvalidRequest(format!("{place}/{name} must be {text}"));
        let one_of = "equal to one of the allowed values: ";
        match name {
            "width" | "height" => {
                let side: u64 = value.parse().map_err(|_| invalid("integer >= 0"))?;
                // Nothing asked for is nothing asked for; beyond the largest, the largest.
                let side = u32::try_from(side).unwrap_or(LONGEST).min(LONGEST);
                let side = (side > 0).then_some(side);
                if name == "width" { self.width = side } else { self.height = side }
            }
            "quality" => {
                let quality = value.parse().ok().filter(|quality| (20..=100).contains(quality));
                self.quality = Some(quality.ok_or_else(|| invalid("integer of 20 to 100"))?);
            }
            "resize" => {
                self.resize = match value {
                    "cover" => Resize::Cover,
                    "contain" => Resize::Contain,
                    "fill" => Resize::Fill,
                    _ => return Err(invalid(&format!("{one_of}cover, contain, fill"))),
                };
            }
            "format" => {
                self.format = match value {
                    "avif" => Some(Format::Avif),
                    "webp" => Some(Format::WebP),
                    "jpeg" | "jpg" => Some(Format::Jpeg),
                    "png" => Some(Format::Png),
                    "origin" => Some(Format::Origin),
                    _ => return Err(invalid(&format!("{one_of}origin, avif, webp, jpeg, png"))),
                };
            }
            _ => {}
        }
        Ok(())
    }
}

/// What a client takes that is smaller than the usual formats. AVIF costs seconds of a core and is made on demand only.
pub(super) fn preferred(headers: &HeaderMap) -> Option<Format> {
    let accepts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepts.flat_map(|text| text.split(',')).find_map(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        let refused = |part: &str| {
            part.strip_prefix("q=").is_some_and(|weight| weight.trim_matches(['0', '.']).is_empty())
        };
        let is_webp = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("image/webp"));
        (is_webp && !parts.any(refused)).then_some(Format::WebP)
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[test]
    fn three_ways_to_ask_for_the_same() {
        let query =
            Transform::from_query("width=100&height=50&resize=contain&quality=70&format=webp&token=x");
        let transform = query.unwrap();
        let body = json!({"width": 100, "height": 50, "resize": "contain", "quality": 70, "format": "webp"});
        assert_eq!(Transform::from_json(&body).unwrap(), transform);
        assert_eq!(Transform::from_claim(&transform.claim().unwrap()).unwrap(), transform);
        assert_eq!(Transform::from_query("width=0").unwrap(), Transform::default());
        assert_eq!(Transform::default().claim(), None);
        let applied = "height:50,width:100,resizing_type:fit,quality:70,format:webp";
        assert_eq!(transform.applied().as_deref(), Some(applied));
        assert_eq!(Transform::from_query("width=99999999999").unwrap().width, Some(LONGEST));
    }

    #[rstest]
    #[case("width=a")]
    #[case("height=-1")]
    #[case("width=1.5")]
    #[case("quality=19")]
    #[case("quality=101")]
    #[case("quality=")]
    #[case("resize=squeeze")]
    #[case("format=bmp")]
    #[case("format=webp%0A")]
    fn nonsense_is_refused(#[case] query: &str) {
        let error = Transform::from_query(query).unwrap_err().to_string();
        assert!(error.starts_with("querystring/"), "{error}");
    }

    #[rstest]
    #[case("image/avif,image/webp,image/*,*/*;q=0.8", Some(Format::WebP))]
    #[case("text/html, Image/WebP;q=0.5", Some(Format::WebP))]
    #[case("image/webp;q=0", None)]
    #[case("image/webp; q=0.0", None)]
    #[case("image/*", None)]
    #[case("", None)]
    fn preferences(#[case] accept: &'static str, #[case] format: Option<Format>) {
        let headers = [(ACCEPT, HeaderValue::from_static(accept))].into_iter().collect();
        assert_eq!(preferred(&headers), format);
    }
}
