//! Times as people say them.

use chrono::{Datelike, NaiveDateTime, Timelike};

/// A day and a time of the clock on the wall: `Thursday, March 5th at 3:30 PM`.
pub(crate) fn spoken(at: NaiveDateTime) -> String {
    let day = at.day();
    format!("{}, {} {day}{} at {}", at.format("%A"), at.format("%B"), ordinal_suffix(day), clock(at))
}

fn clock(at: NaiveDateTime) -> String {
    let (is_pm, hour) = at.hour12();
    let half = if is_pm { "PM" } else { "AM" };
    match (at.hour(), at.minute()) {
        (0, 0) => "midnight".to_owned(),
        (12, 0) => "noon".to_owned(),
        (_, 0) => format!("{hour} {half}"),
        (_, minute) => format!("{hour}:{minute:02} {half}"),
    }
}

fn ordinal_suffix(day: u32) -> &'static str {
    match (day % 100, day % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    }
}

/// Digits one by one, so that nobody says a number: `4 0 7`.
pub(crate) fn digits(text: &str) -> String {
    let mut said = String::with_capacity(text.len() * 2);
    for digit in text.chars() {
        if !said.is_empty() {
            said.push(' ');
        }
        said.push(digit);
    }
    said
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case((2026, 3, 5, 15, 0), "Thursday, March 5th at 3 PM")]
    #[case((2026, 3, 1, 0, 0), "Sunday, March 1st at midnight")]
    #[case((2026, 3, 12, 12, 0), "Thursday, March 12th at noon")]
    #[case((2026, 3, 22, 12, 30), "Sunday, March 22nd at 12:30 PM")]
    #[case((2026, 11, 23, 0, 5), "Monday, November 23rd at 12:05 AM")]
    #[case((2026, 12, 13, 9, 45), "Sunday, December 13th at 9:45 AM")]
    fn times_are_said(#[case] at: (i32, u32, u32, u32, u32), #[case] said: &str) {
        let (year, month, day, hour, minute) = at;
        let at = NaiveDate::from_ymd_opt(year, month, day).unwrap().and_hms_opt(hour, minute, 0).unwrap();
        assert_eq!(spoken(at), said);
    }

    #[test]
    fn codes_are_said_digit_by_digit() {
        assert_eq!(digits("407"), "4 0 7");
    }
}
