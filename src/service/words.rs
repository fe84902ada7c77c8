//! A command given as one string: the words it stands for, or the shell that must run it.
//!
//! Splitting is exec without a shell in between, so that the leader is the program itself.
//! That is only right while both mean the same: whatever a shell would expand, redirect or
//! interpret goes to the shell whole. When in doubt it is the shell's; never half of each.
use std::fmt;

/// What a command line turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Plain words, to be exec'd as they are. Never empty, and the first is not empty.
    Argv(Vec<String>),
    /// The line has shell syntax in it: `/bin/sh -c LINE` is what runs it.
    Shell(String),
}

/// Why a line is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordsError {
    /// Nothing but blanks, or an empty word where the program should be.
    Empty,
    /// A `'` or `"` that is never closed.
    Unclosed(char),
    /// A backslash with nothing after it.
    TrailingBackslash,
    /// A NUL byte, which no argument of exec can hold.
    Nul,
}

impl fmt::Display for WordsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WordsError::Empty => f.write_str("the command is empty"),
            WordsError::Unclosed(quote) => write!(f, "the command has an unclosed {quote}"),
            WordsError::TrailingBackslash => {
                f.write_str("the command ends in a backslash that escapes nothing")
            }
            WordsError::Nul => f.write_str("the command has a NUL byte in it"),
        }
    }
}

impl std::error::Error for WordsError {}

/// Reserved only if unquoted, and only where a command begins.
const KEYWORDS: &[&str] = &[
    "!", "[[", "]]", "case", "coproc", "do", "done", "elif", "else", "esac", "fi", "for",
    "function", "if", "in", "select", "then", "time", "until", "while",
];

/// Commands that exist only inside a shell, so that exec would not find them (or would find a
/// stand-in that changes nothing, such as a `cd` program). Quoting does not change what they are.
const BUILTINS: &[&str] = &[
    ".", ":", "alias", "bg", "break", "builtin", "cd", "command", "continue", "declare", "eval",
    "exec", "exit", "export", "fg", "getopts", "hash", "jobs", "let", "local", "read", "readonly",
    "return", "set", "shift", "shopt", "source", "times", "trap", "type", "typeset", "ulimit",
    "umask", "unalias", "unset", "wait",
];

/// Splits `line` as a POSIX shell would, or says that only a shell can run it.
pub fn split(line: &str) -> Result<Line, WordsError> {
    if line.contains('\0') {
        return Err(WordsError::Nul);
    }
    if line.trim_matches([' ', '\t', '\n']).is_empty() {
        return Err(WordsError::Empty);
    }
    let mut splitter = Splitter::default();
    let needs_shell = splitter.run(line)?;
    if needs_shell || splitter.begins_as_shell_does() {
        return Ok(Line::Shell(line.to_owned()));
    }
    match splitter.words.first() {
        Some(first) if !first.is_empty() => Ok(Line::Argv(splitter.words)),
        _ => Err(WordsError::Empty),
    }
}

#[derive(Default)]
struct Splitter {
    words: Vec<String>,
    /// The word being read; `Some("")` after an empty pair of quotes.
    word: Option<String>,
    /// Some part of the word being read was quoted.
    quoted: bool,
    /// Some part of the first word was quoted.
    first_quoted: bool,
    /// An unquoted `NAME=` stands at the beginning of the line.
    assigns: bool,
}

impl Splitter {
    /// Reads the line to its end; true if a shell is needed. Once an expansion, a comment or a
    /// here-document is met, quotes nest by rules of their own: the shell judges the rest.
    fn run(&mut self, line: &str) -> Result<bool, WordsError> {
        let mut shell = false;
        let trimmed = line.trim_end_matches(['\n', ' ', '\t']);
        // A blank that is escaped belongs to the last word: only then the end stays as it is.
        let text = if trimmed.ends_with('\\') { line } else { trimmed };
        let mut chars = text.trim_start_matches(['\n', ' ', '\t']).chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                ' ' | '\t' => self.end_word(),
                '\'' => self.single(&mut chars)?,
                '"' => {
                    if self.double(&mut chars)? {
                        return Ok(true);
                    }
                }
                '\\' => match chars.next() {
                    Some('\n') => {}
                    Some(escaped) => self.push_quoted(escaped),
                    None => return Err(WordsError::TrailingBackslash),
                },
                '$' | '`' | '<' => return Ok(true),
                '#' if self.word.is_none() => return Ok(true),
                '|' | '&' | ';' | '>' | '(' | ')' | '\n' => {
                    shell = true;
                    self.end_word();
                }
                '*' | '?' | '[' | '{' | '}' => {
                    shell = true;
                    self.push(c);
                }
                '~' if self.tilde_expands() => {
                    shell = true;
                    self.push(c);
                }
                '=' => {
                    self.assigns |= self.is_assignment();
                    self.push(c);
                }
                _ => self.push(c),
            }
        }
        self.end_word();
        Ok(shell)
    }

    fn single(&mut self, chars: &mut impl Iterator<Item = char>) -> Result<(), WordsError> {
        self.open_quote();
        for c in chars {
            if c == '\'' {
                return Ok(());
            }
            self.push(c);
        }
        Err(WordsError::Unclosed('\''))
    }

    /// True if something in the quotes is expanded.
    fn double(&mut self, chars: &mut impl Iterator<Item = char>) -> Result<bool, WordsError> {
        self.open_quote();
        while let Some(c) = chars.next() {
            match c {
                '"' => return Ok(false),
                '$' | '`' => return Ok(true),
                '\\' => match chars.next() {
                    Some('\n') => {}
                    Some(escaped @ ('$' | '`' | '"' | '\\')) => self.push(escaped),
                    Some(other) => {
                        self.push('\\');
                        self.push(other);
                    }
                    None => break,
                },
                _ => self.push(c),
            }
        }
        Err(WordsError::Unclosed('"'))
    }

    fn open_quote(&mut self) {
        self.quoted = true;
        self.word.get_or_insert_default();
    }

    fn push(&mut self, c: char) {
        self.word.get_or_insert_default().push(c);
    }

    fn push_quoted(&mut self, c: char) {
        self.quoted = true;
        self.push(c);
    }

    fn end_word(&mut self) {
        if let Some(word) = self.word.take() {
            if self.words.is_empty() {
                self.first_quoted = self.quoted;
            }
            self.words.push(word);
        }
        self.quoted = false;
    }

    /// At the start of a word by POSIX; after `=` or `:` too in the shells that go further.
    fn tilde_expands(&self) -> bool {
        !self.quoted && self.word.as_deref().is_none_or(|word| word.ends_with(['=', ':']))
    }

    /// What was read so far is the name of an assignment (`NAME` or, of bash, `NAME+`).
    fn is_assignment(&self) -> bool {
        let Some(word) = self.word.as_deref() else {
            return false;
        };
        let name = word.strip_suffix('+').unwrap_or(word);
        self.words.is_empty()
            && !self.quoted
            && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    }

    fn begins_as_shell_does(&self) -> bool {
        let first = self.words.first().map_or("", String::as_str);
        self.assigns
            || BUILTINS.contains(&first)
            || (!self.first_quoted && KEYWORDS.contains(&first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(line: &str) -> Vec<String> {
        match split(line) {
            Ok(Line::Argv(words)) => words,
            other => panic!("{line:?} gave {other:?}"),
        }
    }

    fn is_shell(line: &str) -> bool {
        split(line) == Ok(Line::Shell(line.to_owned()))
    }

    #[test]
    fn plain_words_are_split_at_blanks() {
        assert_eq!(argv("  node\tserver.js  --port=80 "), ["node", "server.js", "--port=80"]);
    }

    #[test]
    fn quotes_join_and_vanish() {
        assert_eq!(argv(r#"a 'b c' "d e"f '' """#), ["a", "b c", "d ef", "", ""]);
        assert_eq!(argv(r#"a '$x `y` | "' "it's""#), ["a", "$x `y` | \"", "it's"]);
    }

    #[test]
    fn backslash_escapes_outside_quotes() {
        assert_eq!(argv(r"a b\ c \$HOME \* \\ \'"), ["a", "b c", "$HOME", "*", "\\", "'"]);
        assert_eq!(argv("a b\\\nc"), ["a", "bc"]);
        assert_eq!(argv("a b\\ "), ["a", "b "]);
    }

    #[test]
    fn backslash_in_double_quotes_escapes_only_what_is_special_there() {
        assert_eq!(argv(r#"a "\$x \" \\ \n \'""#), ["a", r#"$x " \ \n \'"#]);
        assert_eq!(argv("a \"b\\\nc\""), ["a", "bc"]);
    }

    #[test]
    fn every_unquoted_operator_or_expansion_asks_for_the_shell() {
        let lines = [
            "a | b",
            "a & b",
            "a; b",
            "a < b",
            "a > b",
            "(a)",
            "a $b",
            "a `b`",
            "a *",
            "a b?",
            "a [b]",
            "a ~/b",
            "a x=~/b",
            "a # b",
            "a {b,c}",
            "a\nb",
            "a \"$b\"",
            "a \"`b`\"",
            "a 2>&1",
            "a && b",
            "$a",
        ];
        for line in lines {
            assert!(is_shell(line), "{line:?} gave {:?}", split(line));
        }
    }

    #[test]
    fn quoted_syntax_is_plain() {
        assert_eq!(argv("a '|' '&' \\; '>' '~' '#'"), ["a", "|", "&", ";", ">", "~", "#"]);
    }

    #[test]
    fn hash_and_tilde_inside_a_word_are_plain() {
        assert_eq!(argv("a http://h/#x b~ !c d!"), ["a", "http://h/#x", "b~", "!c", "d!"]);
    }

    #[test]
    fn assignment_first_asks_for_the_shell_but_not_later() {
        assert!(is_shell("PORT=80 node x.js"));
        assert!(is_shell("_a1='x y' b"));
        assert!(is_shell("A+=b c"));
        assert_eq!(argv("env PORT=80 node"), ["env", "PORT=80", "node"]);
        assert_eq!(argv("1A=b c"), ["1A=b", "c"]);
        assert_eq!(argv("'A'=b c"), ["A=b", "c"]);
        assert_eq!(argv("--a=b c"), ["--a=b", "c"]);
        assert_eq!(argv("=b c"), ["=b", "c"]);
    }

    #[test]
    fn keywords_and_builtins_ask_for_the_shell_only_as_the_first_word() {
        assert!(is_shell("if true"));
        assert!(is_shell("while x"));
        assert!(is_shell("! x"));
        assert!(is_shell("exec node x.js"));
        assert!(is_shell("'exec' node x.js"));
        assert!(is_shell("cd /srv"));
        assert_eq!(argv("'if' x"), ["if", "x"]);
        assert_eq!(argv("run if while exec"), ["run", "if", "while", "exec"]);
    }

    #[test]
    fn unclosed_quotes_and_backslashes_are_errors() {
        assert_eq!(split("a 'b"), Err(WordsError::Unclosed('\'')));
        assert_eq!(split("a \"b"), Err(WordsError::Unclosed('"')));
        assert_eq!(split("a \"b\\"), Err(WordsError::Unclosed('"')));
        assert_eq!(split("a && b 'c"), Err(WordsError::Unclosed('\'')));
        assert_eq!(split("a b\\"), Err(WordsError::TrailingBackslash));
        assert_eq!(split("\\"), Err(WordsError::TrailingBackslash));
        assert!(WordsError::Unclosed('"').to_string().contains('"'));
    }

    #[test]
    fn an_apostrophe_in_a_comment_or_an_expansion_is_not_an_unclosed_quote() {
        assert!(is_shell("a # don't"));
        assert!(is_shell(r#"a "$(echo "it's")""#));
        assert!(is_shell("cat <<E\ndon't\nE"));
    }

    #[test]
    fn emptiness_is_an_error() {
        for line in ["", "  ", "\t\n", "''", "\"\" a"] {
            assert_eq!(split(line), Err(WordsError::Empty), "{line:?}");
        }
    }

    #[test]
    fn nul_is_an_error() {
        assert_eq!(split("a\0b"), Err(WordsError::Nul));
    }

    #[test]
    fn a_final_newline_is_no_syntax() {
        assert_eq!(argv("a b\n"), ["a", "b"]);
    }

    #[test]
    fn other_scripts_survive() {
        assert_eq!(argv("grüße 'das  日本' \u{a0}x"), ["grüße", "das  日本", "\u{a0}x"]);
    }
}
