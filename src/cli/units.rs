//! Numbers as people read them.

use crate::model::limits::FILE_BYTES;
use std::time::Duration;

/// `1234567` as `1.23 MB`.
pub fn bytes(n: u64) -> String {
    let mut value = n as f64;
    let mut unit = "bytes";
    for larger in ["kB", "MB", "GB", "TB", "PB"] {
        // What would be rounded up to 1000 takes the next unit.
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    match unit {
        "bytes" => many(n, "byte"),
        _ if value < 9.995 => format!("{value:.2} {unit}"),
        _ if value < 99.95 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

/// `500M` or `1.5G` as bytes: `K`, `M`, `G` and `T` are powers of 1024, `KB`, `MB`, `GB` and `TB` of 1000, as coreutils
/// take them. `None` for what is no size.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let (unit, base) = match text[digits..].to_ascii_uppercase().as_str() {
        "" | "B" => return (number.fract() == 0.0).then_some(number as u64),
        unit if unit.ends_with("IB") => (unit.chars().next()?, 1024.0_f64),
        unit if unit.len() == 2 && unit.ends_with('B') => (unit.chars().next()?, 1000.0),
        unit if unit.len() == 1 => (unit.chars().next()?, 1024.0),
        _ => return None,
    };
    let power = "KMGT".find(unit)? as i32 + 1;
    Some((number * base.powi(power)) as u64).filter(|bytes| *bytes <= FILE_BYTES)
}

/// `1234567` as `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 file`, `2,000 files`, `2 copies`.
pub fn many(n: u64, what: &str) -> String {
    match (n, what.strip_suffix('y')) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{} {stem}ies", count(n)),
        (_, None) => format!("{} {what}s", count(n)),
    }
}

/// `1.23 ms`, `4.5 s`.
pub fn time(t: Duration) -> String {
    match t.as_secs_f64() {
        s if s < 0.01 => format!("{:.2} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

/// `30 s`, `5 min`, `3 h`, `4 days`: whole ones, rounded up.
pub fn roughly(t: Duration) -> String {
    match t.as_secs_f64().ceil() as u64 {
        s if s < 60 => format!("{s} s"),
        s if s < 3600 => format!("{} min", s.div_ceil(60)),
        s if s < 2 * 86_400 => format!("{} h", s.div_ceil(3600)),
        s => format!("{} days", s.div_ceil(86_400)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [bytes(1), bytes(999), bytes(1000), bytes(999_600)],
            ["1 byte", "999 bytes", "1.00 kB", "1.00 MB"]
        );
        assert_eq!([bytes(67_108_864), bytes(u64::MAX)], ["67.1 MB", "18447 PB"]);
        assert_eq!([count(0), count(999), count(1000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [many(1, "file"), many(0, "file"), many(3001, "file")],
            ["1 file", "0 files", "3,001 files"]
        );
        assert_eq!(time(Duration::from_micros(1234)), "1.23 ms");
        let roughly = |seconds| roughly(Duration::from_secs(seconds));
        assert_eq!(
            [30, 61, 3600, 86_400, 3 * 86_400].map(roughly),
            ["30 s", "2 min", "1 h", "24 h", "3 days"]
        );
        assert_eq!(
            [time(Duration::from_millis(250)), time(Duration::from_millis(4500))],
            ["250 ms", "4.5 s"]
        );
    }

    #[test]
    fn sizes_are_read_as_coreutils_read_them() {
        let sizes = [
            ("200M", 200 << 20),
            ("1.5G", 3 << 29),
            ("10GB", 10_000_000_000),
            ("4KiB", 4096),
            ("7", 7),
            ("1t", 1 << 40),
        ];
        for (text, bytes) in sizes {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for text in ["", "M", "-1", "1.5", "10X", "1.2.3G", "9999999999T", "1MM"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }
}
