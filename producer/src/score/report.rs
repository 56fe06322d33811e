//! A run as one page of HTML that needs nothing else: figures, how the outputs are distributed, and how
//! fast rows went through.

mod plot;

use std::fmt::Write;

use super::look::{ColumnSummary, NumberSummary, Summary};

/// What the page shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// What was done, such as the model and the file.
    pub title: String,
    /// Figures of the run, in the order they are shown: name and value.
    pub facts: Vec<(String, String)>,
    /// The output.
    pub summary: Summary,
    /// Points in time: seconds since the start, and rows per second up to there.
    pub throughput: Vec<(f64, f64)>,
}

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2330;--soft:#5d6776;--line:#d9dee6;--page:#fff;--bar:#3566b8}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#98a2b3;--line:#343b47;--page:#14181f;--bar:#7aa5f0}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:60rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}\
table{border-collapse:collapse;display:block;overflow-x:auto}\
th,td{text-align:left;padding:.2rem 1rem .2rem 0;border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums}\
th{font-weight:600;color:var(--soft)}.figures{display:flex;flex-wrap:wrap;gap:2rem}figure{margin:0}\
figcaption{color:var(--soft)}svg{display:block;max-width:100%;height:auto}\
svg text{font:11px system-ui,sans-serif;fill:var(--soft)}.bar{fill:var(--bar)}\
.line{fill:none;stroke:var(--bar);stroke-width:1.5}.axis{stroke:var(--line)}";

impl Report {
    /// The page.
    pub fn html(&self) -> String {
        let title = escaped(&self.title);
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
             <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
        );
        let facts = self
            .facts
            .iter()
            .map(|(name, value)| vec![name.clone(), value.clone()]);
        table(&mut page, &[], facts);
        if self.throughput.len() > 1 {
            page.push_str("<h2>Rows per second</h2>\n");
            page.push_str(&plot::line(
                &self.throughput,
                "seconds",
                "Rows per second over time",
            ));
        }
        for column in &self.summary.columns {
            self.column(&mut page, column);
        }
        if !self.summary.first.is_empty() {
            page.push_str("<h2>First rows</h2>\n");
            let names = self
                .summary
                .columns
                .iter()
                .map(|column| column.name.clone());
            let names: Vec<String> = names.collect();
            table(&mut page, &names, self.summary.first.iter().cloned());
        }
        page.push_str("</body></html>\n");
        page
    }

    fn column(&self, page: &mut String, column: &ColumnSummary) {
        let name = escaped(&column.name);
        let kind = escaped(&column.datatype);
        put(
            page,
            format_args!("<h2>{name} <small>{kind}</small></h2>\n"),
        );
        let mut facts = vec![
            vec!["values".to_owned(), column.values.to_string()],
            vec!["without a value".to_owned(), column.nulls.to_string()],
        ];
        if let Some(numbers) = &column.numbers {
            facts.extend(number_facts(numbers));
        }
        table(page, &[], facts.into_iter());
        page.push_str("<div class=\"figures\">\n");
        if let Some(numbers) = &column.numbers
            && !numbers.histogram.counts.is_empty()
        {
            page.push_str(&plot::histogram(
                &numbers.histogram,
                "Distribution of the values",
            ));
        }
        if !column.top.is_empty() {
            page.push_str(&plot::bars(&column.top, "Most frequent values"));
        }
        if !column.largest.is_empty() {
            let places = column.largest.iter();
            let places: Vec<_> = places
                .map(|(place, count)| (place.to_string(), *count))
                .collect();
            page.push_str(&plot::bars(&places, "Place of the largest number of a row"));
        }
        page.push_str("</div>\n");
    }
}

fn number_facts(numbers: &NumberSummary) -> Vec<Vec<String>> {
    let mut facts = Vec::new();
    if let Some(range) = numbers.range {
        for (name, value) in [
            ("smallest", range.min),
            ("mean", range.mean),
            ("largest", range.max),
        ] {
            facts.push(vec![name.to_owned(), plot::number(value)]);
        }
    }
    for (name, count) in [
        ("not a number", numbers.nan),
        ("infinite", numbers.infinite),
    ] {
        if count > 0 {
            facts.push(vec![name.to_owned(), count.to_string()]);
        }
    }
    facts
}

fn table(page: &mut String, head: &[String], rows: impl Iterator<Item = Vec<String>>) {
    page.push_str("<table>");
    if !head.is_empty() {
        row(page, "th", head);
    }
    for cells in rows {
        row(page, "td", &cells);
    }
    page.push_str("</table>\n");
}

fn row(page: &mut String, tag: &str, cells: &[String]) {
    page.push_str("<tr>");
    for cell in cells {
        put(page, format_args!("<{tag}>{}</{tag}>", escaped(cell)));
    }
    page.push_str("</tr>");
}

/// Appends to text, which takes everything.
fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = page.write_fmt(text);
}

/// Text that is only text in HTML.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray};

    use super::*;
    use crate::score::look::Look;

    fn report() -> Report {
        let scores: Vec<f64> = (0..2_000).map(|n| f64::from(n % 100) / 100.0).collect();
        let words: StringArray = (0..2_000).map(|n| Some(["<b>", "a&b"][n % 2])).collect();
        let batch = RecordBatch::try_from_iter([
            ("score", Arc::new(Float64Array::from(scores)) as ArrayRef),
            ("\"word\"", Arc::new(words)),
        ])
        .expect("a batch");
        let mut look = Look::new(&batch.schema());
        look.add(&batch);
        Report {
            title: "digits <1>".to_owned(),
            facts: vec![("rows".to_owned(), "2000".to_owned())],
            summary: look.summary(),
            throughput: vec![(1.0, 500.0), (2.0, 900.0), (3.0, 0.0)],
        }
    }

    #[test]
    fn the_page_has_all_figures_and_nothing_from_elsewhere() {
        let page = report().html();
        for part in [
            "<title>digits &lt;1&gt;</title>",
            "<td>rows</td><td>2000</td>",
            "<td>mean</td><td>0.495</td>",
            "&quot;word&quot;",
            "&lt;b&gt;",
            "a&amp;b",
            "Rows per second over time",
            "<polyline",
        ] {
            assert!(page.contains(part), "{part} is missing");
        }
        assert_eq!(page.matches("<svg").count(), 3);
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        // 32 bins, and two words.
        assert_eq!(page.matches("class=\"bar\"").count(), 34);
        for foreign in ["http", "<script", "src=", "url(", "@import", "NaN", "<b>"] {
            assert!(!page.contains(foreign), "{foreign} is there");
        }
    }

    #[test]
    fn a_run_without_rows_has_a_page() {
        let mut empty = report();
        empty.summary = Look::new(&arrow_schema::Schema::empty()).summary();
        empty.throughput.clear();
        assert!(empty.html().ends_with("</body></html>\n"));
        assert!(!empty.html().contains("<svg"));
    }
}
