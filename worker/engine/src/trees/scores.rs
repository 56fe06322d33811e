//! From the sums over trees to scores and labels.

use tract_onnx::tract_core::internal::*;

/// What is done to the scores at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum PostTransform {
    None,
    Softmax,
    Logistic,
    /// Softmax over what is not 0.
    SoftmaxZero,
}

impl PostTransform {
    pub(super) fn parse(name: Option<&str>) -> TractResult<Self> {
        Ok(match name {
            None | Some("NONE") => Self::None,
            Some("SOFTMAX") => Self::Softmax,
            Some("LOGISTIC") => Self::Logistic,
            Some("SOFTMAX_ZERO") => Self::SoftmaxZero,
            Some(other) => bail!(
                "post_transform `{other}` is not supported; there are NONE, SOFTMAX, LOGISTIC and SOFTMAX_ZERO"
            ),
        })
    }

    pub(super) fn apply(self, scores: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Logistic => scores
                .iter_mut()
                .for_each(|score| *score = logistic(*score)),
            Self::Softmax => softmax(scores, |_| true),
            Self::SoftmaxZero => softmax(scores, |score| score.abs() > 1e-7),
        }
    }
}

fn logistic(value: f32) -> f32 {
    // The exponent is never positive, so nothing overflows.
    let other = 1.0 / (1.0 + (-value.abs()).exp());
    if value < 0.0 { 1.0 - other } else { other }
}

fn softmax(scores: &mut [f32], counts: impl Fn(f32) -> bool) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = if counts(*score) {
            (*score - largest).exp()
        } else {
            0.0
        };
        sum += *score;
    }
    if sum > 0.0 {
        scores.iter_mut().for_each(|score| *score /= sum);
    }
}

/// Two labels, and leaves that speak of one of them only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Binary {
    /// The class the leaves speak of.
    pub(super) class: usize,
    /// No leaf has a negative value: they are probabilities, and one half decides.
    pub(super) probabilities: bool,
}

impl Binary {
    /// Completes the scores of a row and gives the place of its label.
    pub(super) fn complete(self, scores: &mut [f32], post: PostTransform) -> usize {
        let score = scores[self.class];
        let threshold = if self.probabilities { 0.5 } else { 0.0 };
        let label = usize::from(score > threshold);
        if self.class == 1 {
            post.apply(scores);
        } else if post == PostTransform::Logistic {
            scores.copy_from_slice(&[logistic(-score), logistic(score)]);
        } else if self.probabilities {
            scores.copy_from_slice(&[1.0 - score, score]);
        } else {
            scores.copy_from_slice(&[-score, score]);
        }
        label
    }
}

/// Place of the first of the largest; a NaN is never the largest.
pub(super) fn largest(scores: &[f32]) -> usize {
    let mut best = 0;
    for (place, score) in scores.iter().enumerate() {
        if *score > scores[best] || scores[best].is_nan() && !score.is_nan() {
            best = place;
        }
    }
    best
}
