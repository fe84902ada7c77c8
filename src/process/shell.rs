//! Lines as a shell reads them: one lexer, and two questions to it.
//!
//! [`argv`]: what is exec'd for a line. It is split without a shell in between, so that the
//! leader is the program itself; but only while both mean the same: whatever a shell would
//! expand, redirect or interpret goes to the shell whole. Never half of each.
//!
//! [`simple_commands`]: which commands are in a line. Whether it is correct is the shell's to say:
//! an unclosed quote reaches to the end, an expansion stays as it is written.

/// Commands that exist only inside a shell, so that exec would not find them (or would find a
/// stand-in that changes nothing, such as a `cd` program). Quoting does not change what they are.
pub const BUILTINS: &[&str] = &[
    ".", ":", "alias", "bg", "break", "builtin", "cd", "command", "continue", "declare", "eval",
    "exec", "exit", "export", "fg", "getopts", "hash", "jobs", "let", "local", "read", "readonly",
    "return", "set", "shift", "shopt", "source", "times", "trap", "type", "typeset", "ulimit",
    "umask", "unalias", "unset", "wait",
];

/// Reserved words that may stand before a command, where they are not quoted.
pub const PREFIXES: &[&str] =
    &["!", "{", "}", "do", "done", "elif", "else", "esac", "fi", "if", "then", "until", "while"];

/// Reserved words that make the words after them something else than a command.
pub const HEADERS: &[&str] = &["for", "case", "select", "function", "[["];

const RESERVED: &[&str] = &["]]", "coproc", "in", "time"];

/// One simple command of a line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Simple {
    /// Its words without quotes; redirections are left out.
    pub words: Vec<String>,
    /// It follows `|` or `||`: the command before it is the one that matters.
    pub secondary: bool,
}

/// The words that are exec'd for a command line: its own, or `/bin/sh -c` if it has shell syntax
/// in it. The first word is not empty. Errors: why the line is no command.
pub fn argv(line: &str) -> Result<Vec<String>, &'static str> {
    const EMPTY: &str = "the command is empty";
    let blank = ['\n', ' ', '\t'];
    if line.contains('\0') {
        return Err("the command has a NUL byte in it");
    }
    let trimmed = line.trim_end_matches(blank);
    if trimmed.is_empty() {
        return Err(EMPTY);
    }
    // A blank that is escaped belongs to the last word: only then the end stays as it is.
    let text = if trimmed.ends_with('\\') { line } else { trimmed };
    let mut lexer = Lexer::new(text.trim_start_matches(blank));
    lexer.run();
    // Once something nests by rules of its own, what looks unclosed may be closed.
    if let (Some(reason), false) = (lexer.unclosed, lexer.nests) {
        return Err(reason);
    }
    let words = lexer.done.into_iter().next().unwrap_or_default().words;
    let first = words.first().map_or("", String::as_str);
    let is_reserved = |list: &[&str]| !lexer.first_quoted && list.contains(&first);
    if lexer.needs_shell
        || lexer.nests
        || BUILTINS.contains(&first)
        || [PREFIXES, HEADERS, RESERVED].into_iter().any(is_reserved)
    {
        return Ok(["/bin/sh", "-c", line].map(str::to_owned).into());
    }
    if first.is_empty() { Err(EMPTY) } else { Ok(words) }
}

/// The words of `line`, split as a shell would; nothing else in it means anything. Errors: a quote
/// that is not closed.
pub fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '\\') => word.get_or_insert_default().extend(chars.next()),
            (Some('"'), '\\') => {
                let next = chars.next();
                let escape = next.filter(|c| !"\"\\$`".contains(*c)).map(|_| c);
                word.get_or_insert_default().extend(escape.into_iter().chain(next));
            }
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if quote.is_some() { Err("a quote is not closed") } else { Ok(words) }
}

/// The simple commands of `line` in order. None is empty of words.
pub fn simple_commands(line: &str) -> Vec<Simple> {
    let mut lexer = Lexer::new(line);
    lexer.run();
    lexer.done
}

/// Whether `word` begins with the assignment of a variable, `NAME=` or bash's `NAME+=`.
pub fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        let name = name.strip_suffix('+').unwrap_or(name);
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    })
}

struct Lexer<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    /// The word being read; `Some("")` after an empty pair of quotes.
    word: Option<String>,
    /// Some part of the word being read was quoted.
    quoted: bool,
    /// The next word names a file of a redirection.
    redirect: bool,
    command: Simple,
    done: Vec<Simple>,
    /// Some part of the line's first word was quoted.
    first_quoted: bool,
    /// Something unquoted means more to a shell than to exec.
    needs_shell: bool,
    /// So does an expansion, a comment or a here-document, after which quotes nest by other rules.
    nests: bool,
    /// Why the line ends too early.
    unclosed: Option<&'static str>,
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
            first_quoted: false,
            needs_shell: false,
            nests: false,
            unclosed: None,
        }
    }

    fn run(&mut self) {
        while let Some(c) = self.chars.next() {
            match c {
                ' ' | '\t' => self.end_word(),
                '\'' => self.single(),
                '"' => self.double(),
                '\\' => match self.chars.next() {
                    Some('\n') => {}
                    Some(escaped) => {
                        self.quoted = true;
                        self.push(escaped);
                    }
                    None => {
                        let reason = "the command ends in a backslash that escapes nothing";
                        self.unclosed = Some(reason);
                    }
                },
                '$' | '`' => self.expansion(c),
                '#' if self.word.is_none() => {
                    self.nests = true;
                    // The newline that ends a comment separates too.
                    while self.chars.next_if(|&next| next != '\n').is_some() {}
                }
                '<' | '>' => self.redirection(c),
                '|' => {
                    self.chars.next_if(|&next| next == '|' || next == '&');
                    self.separate(true);
                }
                '&' | ';' | '\n' | '(' | ')' => self.separate(false),
                _ => {
                    self.needs_shell |= "*?[{}".contains(c) || c == '~' && self.tilde_expands();
                    self.push(c);
                    self.needs_shell |= c == '=' && self.assigns();
                }
            }
        }
        self.end_command(false);
    }

    fn push(&mut self, c: char) {
        self.word.get_or_insert_default().push(c);
    }

    fn open_quote(&mut self) {
        self.quoted = true;
        self.word.get_or_insert_default();
    }

    fn single(&mut self) {
        self.open_quote();
        while let Some(c) = self.chars.next() {
            if c == '\'' {
                return;
            }
            self.push(c);
        }
        self.unclosed = Some("the command has an unclosed '");
    }

    fn double(&mut self) {
        self.open_quote();
        while let Some(c) = self.chars.next() {
            match c {
                '"' => return,
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
        self.unclosed = Some("the command has an unclosed \"");
    }

    /// Takes `$(…)`, `${…}` and backticks whole: what is inside are no words of this command.
    fn expansion(&mut self, first: char) {
        self.nests = true;
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

    fn redirection(&mut self, first: char) {
        self.needs_shell = true;
        self.nests |= first == '<';
        let descriptor = |word: &String| !self.quoted && word.bytes().all(|b| b.is_ascii_digit());
        self.word = self.word.take().filter(|word| !descriptor(word));
        self.end_word();
        let mut last = ' ';
        while let Some(c) = self.chars.next_if(|&next| "<>&|".contains(next)) {
            last = c;
        }
        // `>&-` closes, and names no file.
        let closes = last == '&' && self.chars.next_if(|&next| next == '-').is_some();
        self.redirect = !closes;
    }

    /// At the start of a word by POSIX; after `=` or `:` too in the shells that go further.
    fn tilde_expands(&self) -> bool {
        !self.quoted && self.word.as_deref().is_none_or(|word| word.ends_with(['=', ':']))
    }

    /// Whether the word being read begins the line and assigns a variable.
    fn assigns(&self) -> bool {
        self.command.words.is_empty()
            && !self.quoted
            && self.word.as_deref().is_some_and(is_assignment)
    }

    fn end_word(&mut self) {
        let quoted = std::mem::take(&mut self.quoted);
        let Some(word) = self.word.take() else {
            return;
        };
        if !std::mem::take(&mut self.redirect) {
            self.first_quoted |= quoted && self.command.words.is_empty() && self.done.is_empty();
            self.command.words.push(word);
        }
    }

    fn separate(&mut self, next_is_secondary: bool) {
        self.needs_shell = true;
        self.end_command(next_is_secondary);
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
