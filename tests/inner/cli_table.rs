//! Of `cli::table`: compiled with the library, for it uses what is private there.
use super::*;

fn table(name: &str, width: Option<usize>, colour: bool) -> String {
    let row = |a: &str, b: &str| vec![Cell::from(a.to_owned()), Cell::from(b.to_owned())];
    let rows = [row("0", name), row("10", "é")].map(|mut row| {
        row.push(Cell { text: "online".into(), hue: Hue::Green });
        row
    });
    let head = [("id", Side::Right), ("name", Side::Yields), ("status", Side::Left)];
    lay_out(
        &head.map(|(title, side)| Column(title, side)),
        &rows,
        Look { width, colour, boxed: true },
    )
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
    for name in ["web", "日本語", "a\u{301}b", "🚀", "\u{1fae0}x", "\u{915}\u{94d}\u{937}\u{93f}"]
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
