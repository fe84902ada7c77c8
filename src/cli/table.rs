//! Columns of text. Pure: cells in, lines out, never wider than asked if that can be done.
//!
//! A box and colour are for a terminal; anything else gets aligned words.

use crate::service::columns::columns;

/// Narrowest that the column which yields may become.
const YIELD_WIDTH_MIN: usize = 8;

/// What the lines are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Columns of the terminal; `None` is no terminal: no box, no bound.
    pub(crate) width: Option<usize>,
    pub(crate) colour: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hue {
    Plain,
    Green,
    Yellow,
    Red,
}

#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) hue: Hue,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, hue: Hue::Plain }
    }
}

/// Lays out `rows` under `head`. Column `yields` is cut first where the width is too small,
/// then columns are left out from the right.
pub(crate) fn lay_out(head: &[&str], rows: &[Vec<Cell>], yields: usize, look: Look) -> String {
    let mut widths: Vec<usize> = head.iter().map(|h| width_of(h)).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(width_of(&cell.text));
        }
    }
    let boxed = look.width.is_some_and(|w| widths.iter().sum::<usize>() + 3 * widths.len() < w);
    if let (Some(width), false) = (look.width, boxed) {
        shrink(&mut widths, yields, width);
    }
    let sheet = Sheet { widths, boxed, colour: look.colour };
    let mut text = String::new();
    sheet.rule(&mut text, ['┌', '┬', '┐']);
    let titles: Vec<Cell> = head.iter().map(|h| Cell::from((*h).to_owned())).collect();
    sheet.line(&mut text, &titles, true);
    sheet.rule(&mut text, ['├', '┼', '┤']);
    for row in rows {
        sheet.line(&mut text, row, false);
    }
    sheet.rule(&mut text, ['└', '┴', '┘']);
    text
}

fn shrink(widths: &mut Vec<usize>, yields: usize, width: usize) {
    loop {
        let need = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
        let over = need.saturating_sub(width);
        if over == 0 {
            return;
        }
        if widths[yields] >= over + YIELD_WIDTH_MIN {
            widths[yields] -= over;
            return;
        }
        if widths.len() == yields + 1 {
            widths[yields] = widths[yields].saturating_sub(over).max(1);
            return;
        }
        widths.pop();
    }
}

struct Sheet {
    widths: Vec<usize>,
    boxed: bool,
    colour: bool,
}

impl Sheet {
    fn rule(&self, text: &mut String, [left, middle, right]: [char; 3]) {
        if !self.boxed {
            return;
        }
        for (n, width) in self.widths.iter().enumerate() {
            text.push(if n == 0 { left } else { middle });
            text.extend(std::iter::repeat_n('─', width + 2));
        }
        text.push(right);
        text.push('\n');
    }

    fn line(&self, text: &mut String, cells: &[Cell], head: bool) {
        for (n, (width, cell)) in self.widths.iter().zip(cells).enumerate() {
            match (self.boxed, n) {
                (true, _) => text.push_str(if n == 0 { "│ " } else { " │ " }),
                (false, 0) => {}
                (false, _) => text.push_str("  "),
            }
            let shown = cut(&cell.text, *width);
            let pad = width.saturating_sub(width_of(&shown));
            let colour = match cell.hue {
                _ if !self.colour => None,
                _ if head => Some("\x1b[1m"),
                Hue::Plain => None,
                Hue::Green => Some("\x1b[32m"),
                Hue::Yellow => Some("\x1b[33m"),
                Hue::Red => Some("\x1b[31m"),
            };
            match colour {
                Some(on) => text.extend([on, &shown, "\x1b[0m"]),
                None => text.push_str(&shown),
            }
            text.extend(std::iter::repeat_n(' ', pad));
        }
        if self.boxed {
            text.push_str(" │");
        } else {
            text.truncate(text.trim_end_matches(' ').len());
        }
        text.push('\n');
    }
}

/// `text` in at most `width` columns, its end replaced by `…` if it doesn't fit.
fn cut(text: &str, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += columns(c);
        if used > width {
            break;
        }
        shown.push(c);
    }
    shown.push('…');
    shown
}

/// Columns that a terminal uses for `text`.
pub(crate) fn width_of(text: &str) -> usize {
    text.chars().map(columns).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, width: Option<usize>, colour: bool) -> String {
        let row = |a: &str, b: &str| vec![Cell::from(a.to_owned()), Cell::from(b.to_owned())];
        let rows = [row("0", name), row("10", "é")].map(|mut row| {
            row.push(Cell { text: "online".into(), hue: Hue::Green });
            row
        });
        lay_out(&["id", "name", "status"], &rows, 1, Look { width, colour })
    }

    #[test]
    fn without_a_terminal_there_is_no_box_and_no_bound() {
        let long = "x".repeat(300);
        let text = table(&long, None, false);
        assert!(text.contains(&long));
        assert!(!text.contains(['│', '\x1b']));
        assert!(text.lines().all(|line| !line.ends_with(' ')));
    }

    #[test]
    fn every_line_of_a_box_is_as_wide_as_the_others_whatever_the_script() {
        for name in
            ["web", "日本語", "a\u{301}b", "🚀", "\u{1fae0}x", "\u{915}\u{94d}\u{937}\u{93f}"]
        {
            let text = table(name, Some(80), false);
            let widths: Vec<usize> = text.lines().map(width_of).collect();
            assert!(text.starts_with('┌'));
            assert!(widths.iter().all(|w| *w == widths[0]), "{text}");
        }
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_however_narrow() {
        for name in ["web", &"x".repeat(70), &"語".repeat(40)] {
            for width in 9..90 {
                let text = table(name, Some(width), false);
                assert!(text.lines().all(|line| width_of(line) <= width), "{width}\n{text}");
            }
        }
    }

    #[test]
    fn a_name_that_is_cut_says_so() {
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("abcd", 4), "abcd");
    }

    #[test]
    fn colour_is_there_only_when_asked_for() {
        assert!(table("web", Some(80), true).contains("\x1b[32monline\x1b[0m"));
        assert!(!table("web", Some(80), false).contains('\x1b'));
    }
}
