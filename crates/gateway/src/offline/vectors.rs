//! Vectors of hashed words and trigrams.

use super::words::{hash, key_words};

/// The length of vectors where nobody names one: that of the most common columns.
pub(super) const DIMENSIONS: usize = 1_536;

/// A vector of length 1. Texts with words, or parts of words, in common are near each other.
pub(super) fn embed(text: &str, dimensions: usize) -> Vec<f32> {
    let mut vector = vec![0.0_f32; dimensions];
    let mut add = |feature: &str, weight: f32| {
        let hash = hash(feature);
        // Two places each, so that one collision does not make two words the same.
        for part in [hash, hash.rotate_left(29).wrapping_mul(0x9e37_79b9_7f4a_7c15)] {
            let sign = if part >> 63 == 0 { 1.0 } else { -1.0 };
            vector[(part % dimensions as u64) as usize] += sign * weight;
        }
    };
    for word in key_words(text) {
        add(&word, 1.0);
        let letters: Vec<char> = format!("^{word}$").chars().collect();
        for trigram in letters.windows(3) {
            add(&trigram.iter().collect::<String>(), 0.25);
        }
    }
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    } else if let Some(first) = vector.first_mut() {
        *first = 1.0;
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_about_the_same_are_nearer() {
        let near =
            |a: &str, b: &str| -> f32 { embed(a, 384).iter().zip(embed(b, 384)).map(|(a, b)| a * b).sum() };
        let question = "When does the bakery open on Sunday?";
        let right = near(question, "Opening hours of the bakery: Sunday from eight.");
        let wrong = near(question, "The museum shows paintings of the Renaissance.");
        assert!(right > wrong + 0.2, "{right} {wrong}");
        assert!((near(question, question) - 1.0).abs() < 1e-4);
    }
}
