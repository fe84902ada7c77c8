//! PURE. One service's output as lines of several services' output.
use super::options::Prefix;

/// A longer line is cut: nobody waits for its end.
pub(super) const LINE_BYTES_MAX: usize = 16 << 10;

/// Whose lines these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) name: String,
    /// Columns of the longest name.
    pub(super) width: usize,
    /// `stdout` or `stderr`.
    pub(super) stream: &'static str,
}

/// The next line of `bytes`: what it takes, newline included, and what it says. None: its end
/// has not come. `last`: nothing comes any more.
pub(super) fn next_line(bytes: &[u8], last: bool) -> Option<(usize, &[u8])> {
    let window = &bytes[..bytes.len().min(LINE_BYTES_MAX + 1)];
    if let Some(end) = window.iter().position(|byte| *byte == b'\n') {
        return Some((end + 1, &bytes[..end]));
    }
    if bytes.len() > LINE_BYTES_MAX {
        let cut = character_boundary(bytes, LINE_BYTES_MAX);
        return Some((cut, &bytes[..cut]));
    }
    (last && !bytes.is_empty()).then_some((bytes.len(), bytes))
}

/// Not within a character of UTF-8, if it is UTF-8.
fn character_boundary(bytes: &[u8], at: usize) -> usize {
    let begins = |place: &usize| bytes[*place] & 0xc0 != 0x80;
    (at - 3..=at).rev().find(begins).unwrap_or(at)
}

/// Adds a line as it is to be shown. `at` is the time in words.
pub(super) fn put_line(out: &mut Vec<u8>, prefix: Prefix, label: &Label, at: &str, line: &[u8]) {
    match prefix {
        Prefix::None => {}
        Prefix::Name | Prefix::Time => {
            if prefix == Prefix::Time {
                out.extend_from_slice(at.as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(label.name.as_bytes());
            let pad = label.width.saturating_sub(label.name.chars().count());
            out.extend(std::iter::repeat_n(b' ', pad));
            out.extend_from_slice(b" | ");
        }
        Prefix::Json => {
            let object = serde_json::json!({
                "time": at,
                "service": label.name,
                "stream": label.stream,
                "line": String::from_utf8_lossy(line),
            });
            out.extend_from_slice(object.to_string().as_bytes());
            out.push(b'\n');
            return;
        }
    }
    out.extend_from_slice(line);
    out.push(b'\n');
}

#[cfg(test)]
#[path = "../../tests/inner/run_prefix.rs"]
mod tests;
