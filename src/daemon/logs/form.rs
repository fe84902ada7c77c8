//! PURE. A service's output as stamped lines, as JSON, or as lines of several services' output.
use crate::service::time::TimeFormat;
use memchr::{memchr, memrchr};

/// A longer line is cut: nobody waits for its end.
pub(super) const LINE_BYTES_MAX: usize = 16 << 10;

/// How a line is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// What stands first.
    pub time: Option<TimeFormat>,
    /// Then `name | `.
    pub named: bool,
    /// All of it as an object.
    pub json: bool,
}

/// Whose lines these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub name: String,
    /// Columns of the longest name.
    pub width: usize,
    /// `stdout` or `stderr`.
    pub stream: &'static str,
}

/// The next line of `bytes`: what it takes, newline included, and what it says. None: its end
/// has not come. `last`: nothing comes any more.
pub fn next_line(bytes: &[u8], last: bool) -> Option<(usize, &[u8])> {
    let window = &bytes[..bytes.len().min(LINE_BYTES_MAX + 1)];
    if let Some(end) = memchr(b'\n', window) {
        return Some((end + 1, &bytes[..end]));
    }
    if bytes.len() > LINE_BYTES_MAX {
        // Not within a character of UTF-8, if it is UTF-8.
        let begins = |place: &usize| bytes[*place] & 0xc0 != 0x80;
        let cut = (LINE_BYTES_MAX - 3..=LINE_BYTES_MAX).rev().find(begins);
        let cut = cut.unwrap_or(LINE_BYTES_MAX);
        return Some((cut, &bytes[..cut]));
    }
    (last && !bytes.is_empty()).then_some((bytes.len(), bytes))
}

/// The same, but all whole lines within `most` bytes as one: for a form that adds nothing to them.
pub fn next_lines(bytes: &[u8], last: bool, most: usize) -> Option<(usize, &[u8])> {
    let most = most.min(LINE_BYTES_MAX + 1).min(bytes.len());
    let end = memrchr(b'\n', &bytes[..most]);
    end.map(|end| (end + 1, &bytes[..end])).or_else(|| next_line(bytes, last))
}

/// Adds a line as it is to be shown. `at` is the time in words. The length of it all.
pub fn put_line(
    out: &mut Vec<u8>,
    form: &Form,
    label: &Label,
    at: Option<&str>,
    line: &[u8],
) -> usize {
    if form.json {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let (at, name) = (quoted(at.unwrap_or_default()), quoted(&label.name));
        let (stream, line) = (label.stream, quoted(&String::from_utf8_lossy(line)));
        let object = format!(
            "{{\"time\":{at},\"service\":{name},\"stream\":\"{stream}\",\"line\":{line}}}\n"
        );
        out.extend_from_slice(object.as_bytes());
        return out.len();
    }
    if let Some(at) = at {
        out.extend_from_slice(at.as_bytes());
        out.push(b' ');
    }
    if form.named {
        out.extend_from_slice(label.name.as_bytes());
        let pad = label.width.saturating_sub(label.name.chars().count());
        out.extend(std::iter::repeat_n(b' ', pad));
        out.extend_from_slice(b" | ");
    }
    out.extend_from_slice(line);
    out.push(b'\n');
    out.len()
}
