//! Columns of text. Pure: cells in, lines out, never wider than asked if that can be done.
//!
//! A box and colour are for a terminal; anything else gets aligned words.

use crate::service::columns::columns;
use std::borrow::Cow;

/// Narrowest that a column which yields may become.
const YIELD_WIDTH_MIN: usize = 8;

/// A column: its title, and where its text stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column(pub(crate) &'static str, pub(crate) Side);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    /// Of numbers.
    Right,
    /// As on the left; such columns are cut, the last one first, where the width is too small.
    Yields,
}

/// What the lines are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Columns of the terminal; `None` is no terminal: no box, no bound.
    pub(crate) width: Option<usize>,
    pub(crate) colour: bool,
    /// In a box, if there is room for one.
    pub(crate) boxed: bool,
}

impl Look {
    pub(crate) fn paint(self, hue: Hue, text: &str) -> String {
        if self.colour { hue.paint(text) } else { text.to_owned() }
    }
}

/// A colour, by the number that terminals have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hue {
    Plain = 0,
    Bold = 1,
    Dim = 2,
    /// What a key does something to.
    Chosen = 7,
    Red = 31,
    Green = 32,
    Yellow = 33,
}

impl Hue {
    pub(crate) fn paint(self, text: &str) -> String {
        let code = self as u8;
        if code == 0 { text.to_owned() } else { format!("\x1b[{code}m{text}\x1b[0m") }
    }
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

/// Where the width is too small columns that yield are cut, then those on the right left out.
pub(crate) fn lay_out(head: &[Column], rows: &[Vec<Cell>], look: Look) -> String {
    let mut widths: Vec<usize> = head.iter().map(|column| width_of(column.0)).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(width_of(&cell.text));
        }
    }
    let whole = widths.iter().sum::<usize>() + 3 * widths.len();
    let boxed = look.boxed && look.width.is_some_and(|width| whole < width);
    if let (Some(width), false) = (look.width, boxed) {
        shrink(&mut widths, head, width);
    }
    let sheet = Sheet { head, widths, look: Look { boxed, ..look } };
    let mut text = String::new();
    sheet.rule(&mut text, ['┌', '┬', '┐']);
    let title = |column: &Column| Cell { text: column.0.to_owned(), hue: Hue::Bold };
    sheet.line(&mut text, &head.iter().map(title).collect::<Vec<_>>());
    sheet.rule(&mut text, ['├', '┼', '┤']);
    for row in rows {
        sheet.line(&mut text, row);
    }
    sheet.rule(&mut text, ['└', '┴', '┘']);
    text
}

fn shrink(widths: &mut Vec<usize>, head: &[Column], width: usize) {
    loop {
        let need = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
        let mut over = need.saturating_sub(width);
        let yields = |n: &usize| head[*n].1 == Side::Yields;
        for n in (0..widths.len()).rev().filter(yields) {
            let cut = over.min(widths[n].saturating_sub(YIELD_WIDTH_MIN));
            widths[n] -= cut;
            over -= cut;
        }
        let first = (0..widths.len()).find(yields).unwrap_or(0);
        if over == 0 {
            return;
        }
        if widths.len() == first + 1 {
            widths[first] = widths[first].saturating_sub(over).max(1);
            return;
        }
        widths.pop();
    }
}

struct Sheet<'a> {
    head: &'a [Column],
    widths: Vec<usize>,
    look: Look,
}

impl Sheet<'_> {
    fn rule(&self, text: &mut String, [left, middle, right]: [char; 3]) {
        if !self.look.boxed {
            return;
        }
        for (n, width) in self.widths.iter().enumerate() {
            text.push(if n == 0 { left } else { middle });
            text.extend(std::iter::repeat_n('─', width + 2));
        }
        text.push(right);
        text.push('\n');
    }

    fn line(&self, text: &mut String, cells: &[Cell]) {
        for (n, (width, cell)) in self.widths.iter().zip(cells).enumerate() {
            match (self.look.boxed, n) {
                (true, _) => text.push_str(if n == 0 { "│ " } else { " │ " }),
                (false, 0) => {}
                (false, _) => text.push_str("  "),
            }
            let shown = within(&cell.text, *width);
            let (pad, side) = (width.saturating_sub(width_of(&shown)), self.head[n].1);
            let (left, right) = if side == Side::Right { (pad, 0) } else { (0, pad) };
            text.extend(std::iter::repeat_n(' ', left));
            match self.look.colour {
                true => text.push_str(&cell.hue.paint(&shown)),
                false => text.push_str(&shown),
            }
            text.extend(std::iter::repeat_n(' ', right));
        }
        if self.look.boxed {
            text.push_str(" │");
        } else {
            text.truncate(text.trim_end_matches(' ').len());
        }
        text.push('\n');
    }
}

/// `text` in at most `width` columns, its end replaced by `…` if it doesn't fit.
pub(crate) fn cut(text: &str, width: usize) -> String {
    within(text, width).into_owned()
}

fn within(text: &str, width: usize) -> Cow<'_, str> {
    if width_of(text) <= width {
        return text.into();
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
    shown.into()
}

/// Columns that a terminal uses for `text`.
pub(crate) fn width_of(text: &str) -> usize {
    text.chars().map(columns).sum()
}

#[cfg(test)]
#[path = "../../tests/inner/cli_table.rs"]
mod tests;
