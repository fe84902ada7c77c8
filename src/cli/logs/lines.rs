//! What is shown of each line: which lines, and what stands before them. Pure.
use crate::service::time::parse_rfc3339;
use regex_lite::Regex;

/// A line that is longer gets its prefix again in the middle.
const LINE_BYTES_MAX: usize = 64 << 10;

#[derive(Clone, Debug, Default)]
pub(super) struct Wish {
    pub(super) filter: Option<Regex>,
    /// Unix milliseconds: older lines are not shown, as far as a line says how old it is.
    pub(super) since: u64,
    pub(super) json: bool,
    /// What was read just now bears the time.
    pub(super) stamped: bool,
    pub(super) colour: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Label {
    pub(super) service: String,
    /// `out` or `error`.
    pub(super) stream: &'static str,
    /// For the colour.
    pub(super) number: u32,
}

/// The lines of one stream, as its bytes come.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The beginning of a line whose end isn't there yet.
    partial: Vec<u8>,
    /// The last line that said when it was written is too old.
    is_old: bool,
}

impl Lines {
    /// Gives each line that `bytes` completes, if it is wished for, without its newline.
    pub(super) fn put(&mut self, bytes: &[u8], wish: &Wish, mut give: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece.strip_suffix(b"\n").unwrap_or(piece));
            if piece.ends_with(b"\n") || self.partial.len() >= LINE_BYTES_MAX {
                let line = std::mem::take(&mut self.partial);
                if self.is_wished(&line, wish) {
                    give(&line);
                }
            }
        }
    }

    /// What there is of a line is a line.
    pub(super) fn take_rest(&mut self, wish: &Wish) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.partial);
        (!line.is_empty() && self.is_wished(&line, wish)).then_some(line)
    }

    fn is_wished(&mut self, line: &[u8], wish: &Wish) -> bool {
        if wish.since > 0 {
            self.is_old = time_of(line).map_or(self.is_old, |at| at < wish.since);
        }
        let found = |filter: &Regex| filter.is_match(&String::from_utf8_lossy(line));
        !self.is_old && wish.filter.as_ref().is_none_or(found)
    }
}

impl Wish {
    /// Whether bytes pass as they are.
    pub(super) fn is_plain(&self) -> bool {
        self.filter.is_none() && self.since == 0 && !self.json && !self.stamped
    }

    /// A line as it is shown. `now`: it was written just now.
    pub(super) fn shown(
        &self,
        line: &[u8],
        label: &Label,
        now: Option<&str>,
        prefixed: bool,
    ) -> Vec<u8> {
        let Label { service, stream, number } = label;
        if self.json {
            let text = String::from_utf8_lossy(line);
            let mut object = serde_json::json!({
                "service": service, "stream": stream, "line": text,
            });
            if let Some(now) = now {
                object["time"] = now.into();
            }
            return format!("{object}\n").into_bytes();
        }
        let now = now.filter(|_| self.stamped).map_or(String::new(), |now| format!("{now} "));
        let name = match (prefixed, self.colour) {
            (false, _) => String::new(),
            (true, false) => format!("{service} | "),
            (true, true) => format!("\x1b[{}m{service} | \x1b[0m", 31 + number % 6),
        };
        [now.as_bytes(), name.as_bytes(), line, b"\n"].concat()
    }
}

/// When a line was written, in Unix milliseconds: at its beginning, or as an object's `time`.
pub(super) fn time_of(line: &[u8]) -> Option<u64> {
    parse_rfc3339(line.strip_prefix(b"{\"time\":\"").unwrap_or(line))
}
