//! Markdown tables, and numbers as they are shown everywhere. Called by `report` and `plot`.
//!
//! Never: more digits than a measurement has.

// SPDX-License-Identifier: Apache-2.0

/// A table with its first column to the left and all others to the right.
pub(crate) fn markdown(head: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut text = line(head);
    let rulers: Vec<&str> =
        (0..head.len()).map(|column| if column == 0 { "---" } else { "---:" }).collect();
    text.push_str(&format!("|{}|\n", rulers.join("|")));
    for row in rows {
        text.push_str(&line(row));
    }
    text
}

/// Three significant digits, thousands parted by commas.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1000.0 {
        return grouped(value.round() as i64);
    }
    let digits = if size >= 100.0 || size == 0.0 {
        0
    } else if size >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}")
}

/// The same without zeros behind the point: for what is counted, and for the marks of an axis.
pub(crate) fn mark(value: f64) -> String {
    let text = number(value);
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn grouped(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits_and_part_thousands() {
        for (value, expected) in [
            (0.0, "0"),
            (0.674, "0.67"),
            (46.44, "46.4"),
            (185.2, "185"),
            (999.4, "999"),
            (1_234.0, "1,234"),
            (1_234_567.8, "1,234,568"),
            (-1_000.0, "-1,000"),
        ] {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn marks_have_no_idle_zeros() {
        for (value, expected) in
            [(0.0, "0"), (0.5, "0.5"), (20.0, "20"), (1.0, "1"), (100.0, "100"), (2e4, "20,000")]
        {
            assert_eq!(mark(value), expected);
        }
    }

    #[test]
    fn a_cell_cannot_end_its_row() {
        let text = markdown(&["a".into(), "b".into()], &[vec!["x|y".into(), "1".into()]]);
        assert_eq!(text, "| a | b |\n|---|---:|\n| x\\|y | 1 |\n");
    }
}
