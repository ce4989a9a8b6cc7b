//! `myelin explain WORD`: what an outcome word of a log line or metric means, who has to act, and what
//! to do, from the same table that the documentation shows. Called by `main`.
//! Never: holds an explanation of its own; docs/OUTCOMES.md is the only source.

// SPDX-License-Identifier: Apache-2.0

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

const DOCUMENT: &str = include_str!("../../../docs/OUTCOMES.md");

/// Comfortable to read, and narrower than most terminals.
const WIDTH: usize = 96;

/// As wide as the longest of the names before the texts.
const INDENT: &str = "            ";

/// Similar words that are worth a question.
const MOST_SUGGESTIONS: usize = 6;

/// One row of a table of the document.
#[derive(Debug, PartialEq, Eq)]
struct Entry<'a> {
    section: &'a str,
    word: &'a str,
    blame: &'a str,
    meaning: &'a str,
    advice: &'a str,
}

/// Explains one word, or lists all of them.
pub(crate) fn perform(word: Option<&str>) -> ExitCode {
    let entries: Vec<Entry<'_>> = entries(DOCUMENT).collect();
    // Whoever stops reading has read enough: an error of the terminal is none of ours.
    match word {
        None => {
            anstream::stdout().write_all(list(&entries).as_bytes()).ok();
            ExitCode::SUCCESS
        }
        Some(word) => match explained(&entries, word) {
            Some(text) => {
                anstream::stdout().write_all(text.as_bytes()).ok();
                ExitCode::SUCCESS
            }
            None => {
                writeln!(std::io::stderr(), "myelin explain: {}", unknown(&entries, word)).ok();
                ExitCode::FAILURE
            }
        },
    }
}

/// The rows of all tables whose first cell is a word in backticks.
fn entries(document: &str) -> impl Iterator<Item = Entry<'_>> {
    let mut section = "";
    document.lines().filter_map(move |line| {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        }
        let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
        let [word, blame, meaning, advice] = cells[..] else { return None };
        let word = word.strip_prefix('`')?.strip_suffix('`')?;
        Some(Entry { section, word, blame, meaning, advice })
    })
}

fn explained(entries: &[Entry<'_>], word: &str) -> Option<String> {
    let found = entries.iter().filter(|entry| entry.word == word);
    let texts: Vec<String> = found.map(text).collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

fn text(entry: &Entry<'_>) -> String {
    let mut text = format!("\x1b[1m{}\x1b[0m  ({})\n", entry.word, entry.section);
    let rows = [("means", entry.meaning), ("to blame", entry.blame), ("to do", entry.advice)];
    for (name, said) in rows {
        let wrapped = wrapped(&said.replace('`', ""));
        writeln!(text, "  {name:<10}{wrapped}").expect("writing to a String does not fail");
    }
    text
}

/// Breaks between words; every line but the first is indented.
fn wrapped(said: &str) -> String {
    let (mut text, mut column) = (String::new(), INDENT.len());
    for word in said.split_whitespace() {
        let length = word.chars().count();
        if column > INDENT.len() {
            if column + 1 + length > WIDTH {
                text.push('\n');
                text.push_str(INDENT);
                column = INDENT.len();
            } else {
                text.push(' ');
                column += 1;
            }
        }
        text.push_str(word);
        column += length;
    }
    text
}

fn list(entries: &[Entry<'_>]) -> String {
    let (mut text, mut section) = (String::new(), "");
    for entry in entries {
        if entry.section != section {
            section = entry.section;
            write!(text, "\n\x1b[1m{section}\x1b[0m\n").expect("writing to a String does not fail");
        }
        let first = entry.meaning.split_once(". ").map_or(entry.meaning, |(first, _)| first);
        let first = first.trim_end_matches('.').replace('`', "");
        writeln!(text, "  {:<32}{first}", entry.word).expect("writing to a String does not fail");
    }
    text.push_str("\nmyelin explain WORD says who has to act, and what to do.\n");
    text
}

/// One line that helps on.
fn unknown(entries: &[Entry<'_>], word: &str) -> String {
    let parts: Vec<&str> = word.split('_').filter(|part| part.len() > 3).collect();
    let is_similar = |entry: &&Entry<'_>| parts.iter().any(|part| entry.word.contains(part));
    let similar: Vec<&str> =
        entries.iter().filter(is_similar).map(|entry| entry.word).take(MOST_SUGGESTIONS).collect();
    if similar.is_empty() {
        return format!("there is no word {word:?}: run `myelin explain` for all of them");
    }
    format!("there is no word {word:?}; similar ones: {}", similar.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "## Ends\n\n| word | blame | what it means | what to do |\n|---|---|---|---|\n\
        | `loop` | configuration | Somebody dialled `x`. Twice. | Dial the port. |\n";

    #[test]
    fn rows_of_words_are_read_and_headings_are_not() {
        let read: Vec<Entry<'_>> = entries(SAMPLE).collect();
        let wanted = Entry {
            section: "Ends",
            word: "loop",
            blame: "configuration",
            meaning: "Somebody dialled `x`. Twice.",
            advice: "Dial the port.",
        };
        assert_eq!(read, [wanted]);
    }

    #[test]
    fn every_row_of_the_document_is_understood() {
        let rows = DOCUMENT.lines().filter(|line| line.starts_with("| `")).count();
        assert!(rows > 50, "{rows}");
        assert_eq!(entries(DOCUMENT).count(), rows);
    }

    #[test]
    fn words_that_the_demo_shows_are_explained() {
        let entries: Vec<Entry<'_>> = entries(DOCUMENT).collect();
        for word in ["plaintext_refused", "untrusted_root", "ca_unreachable"] {
            assert!(explained(&entries, word).is_some(), "{word}");
        }
    }

    #[test]
    fn unknown_word_is_refused_with_similar_ones() {
        let entries: Vec<Entry<'_>> = entries(DOCUMENT).collect();
        assert_eq!(explained(&entries, "untrusted_rot"), None);
        assert!(unknown(&entries, "untrusted_rot").contains("untrusted_root"));
        assert!(unknown(&entries, "zzz").contains("myelin explain"));
    }

    #[test]
    fn long_text_is_broken_between_words() {
        let text = wrapped(&"word ".repeat(40));
        assert!(text.lines().count() > 1);
        assert!(text.lines().all(|line| line.len() <= WIDTH));
    }
}
