//! A tolerant reading of a shell line: the simple commands in it and their words.
//!
//! It never fails and runs nothing: an unclosed quote reaches to the end, an expansion stays as
//! it is written. It only says what the line is about; whether it is correct is the shell's to say.

/// One simple command of a line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Simple {
    pub(super) words: Vec<String>,
    /// It follows `|` or `||`: the command before it is the one that matters.
    pub(super) secondary: bool,
}

/// The simple commands of `line` in order. None is empty of words.
pub(super) fn simple_commands(line: &str) -> Vec<Simple> {
    let mut lexer = Lexer::new(line);
    lexer.run();
    lexer.done
}

struct Lexer<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    word: Option<String>,
    quoted: bool,
    /// The next word names a file of a redirection.
    redirect: bool,
    command: Simple,
    done: Vec<Simple>,
}

impl<'a> Lexer<'a> {
    fn new(line: &'a str) -> Lexer<'a> {
        Lexer {
            chars: line.chars().peekable(),
            word: None,
            quoted: false,
            redirect: false,
            command: Simple::default(),
            done: Vec::new(),
        }
    }

    fn run(&mut self) {
        while let Some(c) = self.chars.next() {
            match c {
                '\'' => self.single(),
                '"' => self.double(),
                '\\' => match self.chars.next() {
                    Some('\n') | None => {}
                    Some(escaped) => {
                        self.quoted = true;
                        self.push(escaped);
                    }
                },
                '$' | '`' => self.expansion(c),
                '#' if self.word.is_none() => {
                    // The newline that ends a comment separates too.
                    while self.chars.next_if(|&next| next != '\n').is_some() {}
                }
                '<' | '>' => self.redirection(),
                '|' => {
                    self.chars.next_if(|&next| next == '|' || next == '&');
                    self.end_command(true);
                }
                '&' | ';' | '\n' | '(' | ')' => self.end_command(false),
                _ if c.is_whitespace() => self.end_word(),
                _ => self.push(c),
            }
        }
        self.end_command(false);
    }

    fn push(&mut self, c: char) {
        self.word.get_or_insert_default().push(c);
    }

    fn single(&mut self) {
        self.quoted = true;
        self.word.get_or_insert_default();
        while let Some(c) = self.chars.next().filter(|&c| c != '\'') {
            self.push(c);
        }
    }

    fn double(&mut self) {
        self.quoted = true;
        self.word.get_or_insert_default();
        while let Some(c) = self.chars.next().filter(|&c| c != '"') {
            match c {
                '$' | '`' => self.expansion(c),
                '\\' => match self.chars.next() {
                    Some('\n') | None => {}
                    Some(escaped @ ('$' | '`' | '"' | '\\')) => self.push(escaped),
                    Some(other) => {
                        self.push('\\');
                        self.push(other);
                    }
                },
                _ => self.push(c),
            }
        }
    }

    /// Takes `$(…)`, `${…}` and backticks whole, so that what is inside does not look like words
    /// of this command.
    fn expansion(&mut self, first: char) {
        self.push(first);
        let (open, close) = match (first, self.chars.peek()) {
            ('`', _) => ('`', '`'),
            (_, Some('(')) => ('(', ')'),
            (_, Some('{')) => ('{', '}'),
            _ => return,
        };
        let mut depth = usize::from(first == '`');
        while let Some(c) = self.chars.next() {
            self.push(c);
            if c == close {
                depth -= 1;
                if depth == 0 {
                    return;
                }
            } else if c == open {
                depth += 1;
            }
        }
    }

    fn redirection(&mut self) {
        let descriptor = |word: &String| !self.quoted && word.bytes().all(|b| b.is_ascii_digit());
        if self.word.as_ref().is_some_and(descriptor) {
            self.word = None;
        }
        self.end_word();
        let mut last = ' ';
        while let Some(c) = self.chars.next_if(|&next| "<>&|".contains(next)) {
            last = c;
        }
        // `>&-` closes, and names no file.
        let closes = last == '&' && self.chars.next_if(|&next| next == '-').is_some();
        self.redirect = !closes;
    }

    fn end_word(&mut self) {
        self.quoted = false;
        let Some(word) = self.word.take() else {
            return;
        };
        if !std::mem::take(&mut self.redirect) {
            self.command.words.push(word);
        }
    }

    /// What comes next is secondary to what just ended, or not.
    fn end_command(&mut self, next_is_secondary: bool) {
        self.end_word();
        self.redirect = false;
        let next = Simple { words: Vec::new(), secondary: next_is_secondary };
        let ended = std::mem::replace(&mut self.command, next);
        if !ended.words.is_empty() {
            self.done.push(ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<String>> {
        simple_commands(line).into_iter().map(|simple| simple.words).collect()
    }

    #[test]
    fn operators_separate_commands_and_redirections_vanish() {
        assert_eq!(
            words("a b>x 2>&1 c | d <e&& f >&- g"),
            [vec!["a", "b", "c"], vec!["d"], vec!["f", "g"]]
        );
        assert!(words(" ;; && # x").is_empty());
    }

    #[test]
    fn only_what_follows_a_pipe_or_an_or_is_secondary() {
        let flags: Vec<bool> =
            simple_commands("a | b || c; d && e & f").iter().map(|s| s.secondary).collect();
        assert_eq!(flags, [false, true, true, false, false, false]);
    }

    #[test]
    fn expansions_stay_in_their_word() {
        assert_eq!(
            words(r#""$(dirname "$0")/a b" ${X:-y z}w `c d`"#),
            [[r#"$(dirname "$0")/a b"#, "${X:-y z}w", "`c d`"]]
        );
    }

    #[test]
    fn what_is_never_closed_reaches_to_the_end() {
        assert_eq!(words("a 'b c"), [["a", "b c"]]);
        assert_eq!(words("a \"b c"), [["a", "b c"]]);
        assert_eq!(words("a $(b c"), [["a", "$(b c"]]);
        assert_eq!(words("a b\\"), [["a", "b"]]);
    }
}
