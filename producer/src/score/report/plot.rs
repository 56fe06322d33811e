//! Plots as SVG inside of a page.

use super::{escaped, put};
use crate::score::look::Histogram;

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 150.0;
/// Below the plot, for its numbers.
const FOOT: f64 = 18.0;
const BAR_HEIGHT: f64 = 20.0;
const LABEL_WIDTH: f64 = 130.0;

/// Bars over a range, with its ends below.
pub(super) fn histogram(histogram: &Histogram, caption: &str) -> String {
    let most = histogram.counts.iter().max().copied().unwrap_or(0).max(1) as f64;
    let bins = histogram.counts.len().max(1) as f64;
    let step = WIDTH / bins;
    let mut svg = open(WIDTH, HEIGHT + FOOT, caption);
    for (place, count) in histogram.counts.iter().enumerate() {
        let height = *count as f64 / most * HEIGHT;
        let (x, y, width) = (place as f64 * step, HEIGHT - height, step - 1.0);
        let low = histogram.from + histogram.width * place as f64;
        let (low, high) = (number(low), number(low + histogram.width));
        put(
            &mut svg,
            format_args!(
                "<rect class=\"bar\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\">\
                 <title>{low} to {high}: {count}</title></rect>"
            ),
        );
    }
    let high = histogram.from + histogram.width * bins;
    foot(&mut svg, &number(histogram.from), &number(high));
    svg.push_str("</svg></figure>\n");
    svg
}

/// A bar per value, with the value before and its count behind.
pub(super) fn bars(values: &[(String, u64)], caption: &str) -> String {
    let most = values
        .iter()
        .map(|(_, count)| *count)
        .max()
        .unwrap_or(0)
        .max(1) as f64;
    let room = WIDTH - LABEL_WIDTH - 80.0;
    let mut svg = open(WIDTH, values.len() as f64 * BAR_HEIGHT, caption);
    for (place, (value, count)) in values.iter().enumerate() {
        let y = place as f64 * BAR_HEIGHT;
        let width = *count as f64 / most * room;
        let short: String = value.chars().take(20).collect();
        let (short, value) = (escaped(&short), escaped(value));
        let (text_y, count_x) = (y + 14.0, LABEL_WIDTH + width + 5.0);
        put(
            &mut svg,
            format_args!(
                "<text x=\"0\" y=\"{text_y:.1}\">{short}<title>{value}</title></text>\
                 <rect class=\"bar\" x=\"{LABEL_WIDTH:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\"/>\
                 <text x=\"{count_x:.1}\" y=\"{text_y:.1}\">{count}</text>",
                y + 2.0,
                BAR_HEIGHT - 4.0
            ),
        );
    }
    svg.push_str("</svg></figure>\n");
    svg
}

/// A line through points in the order of `x`, from zero upwards.
pub(super) fn line(points: &[(f64, f64)], unit: &str, caption: &str) -> String {
    let width = WIDTH * 2.0;
    let finite = || {
        points
            .iter()
            .filter(|(x, y)| x.is_finite() && y.is_finite())
    };
    let highest = finite().map(|(_, y)| *y).fold(0.0, f64::max);
    let last = finite().map(|(x, _)| *x).fold(0.0, f64::max);
    let scale = |value: f64, most: f64| if most > 0.0 { value / most } else { 0.0 };
    let mut svg = open(width, HEIGHT + FOOT, caption);
    svg.push_str("<polyline class=\"line\" points=\"");
    for (x, y) in finite() {
        let (x, y) = (
            scale(*x, last) * width,
            HEIGHT - scale(*y, highest) * (HEIGHT - 14.0),
        );
        put(&mut svg, format_args!("{x:.1},{y:.1} "));
    }
    svg.push_str("\"/>");
    put(
        &mut svg,
        format_args!("<text x=\"0\" y=\"10\">{}</text>", number(highest)),
    );
    put(
        &mut svg,
        format_args!(
            "<line class=\"axis\" x1=\"0\" x2=\"{width}\" y1=\"{HEIGHT}\" y2=\"{HEIGHT}\"/>"
        ),
    );
    let y = HEIGHT + FOOT - 4.0;
    let (last, unit) = (number(last), escaped(unit));
    put(
        &mut svg,
        format_args!("<text x=\"{width}\" y=\"{y}\" text-anchor=\"end\">{last} {unit}</text>"),
    );
    svg.push_str("</svg></figure>\n");
    svg
}

/// A number for people: six digits, and an exponent where it is far from one.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if (1e-4..1e9).contains(&size) {
        let digits = (5 - size.log10().floor() as i32).clamp(0, 9) as usize;
        let text = format!("{value:.digits$}");
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text
        }
    } else {
        format!("{value:.3e}")
    }
}

fn open(width: f64, height: f64, caption: &str) -> String {
    let caption = escaped(caption);
    format!(
        "<figure><figcaption>{caption}</figcaption><svg viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"{caption}\">"
    )
}

/// The ends of the range below a plot.
fn foot(svg: &mut String, low: &str, high: &str) {
    let y = HEIGHT + FOOT - 4.0;
    put(
        svg,
        format_args!(
            "<line class=\"axis\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{HEIGHT}\" y2=\"{HEIGHT}\"/>\
             <text x=\"0\" y=\"{y}\">{low}</text>\
             <text x=\"{WIDTH}\" y=\"{y}\" text-anchor=\"end\">{high}</text>"
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_six_digits_at_most() {
        for (value, text) in [
            (0.0, "0"),
            (0.495, "0.495"),
            (-1.0 / 3.0, "-0.333333"),
            (123_456.789, "123457"),
            (1_000_000.0, "1000000"),
            (1e12, "1.000e12"),
            (2.5e-7, "2.500e-7"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn lines_without_height_or_with_odd_points_are_drawn() {
        let flat = line(
            &[(0.0, 0.0), (f64::NAN, 1.0), (0.0, f64::INFINITY)],
            "s",
            "flat",
        );
        assert!(flat.contains("0.0,150.0") && !flat.contains("NaN") && !flat.contains("inf"));
    }
}
