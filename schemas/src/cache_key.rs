//! The key of a cached answer: everything that determines it, and nothing else.
//!
//! BLAKE3 over the version's digest, the tenant, the requested outputs, the parameters the model
//! lists as its own, and the inputs. Each part goes in with its length, so none runs into another.

use std::fmt;

use crate::identity::Digest;
use crate::request::{Parameter, Parameters};
use crate::tensor::Tensor;

/// Names one answer: that of a whole job or of one of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey(Digest);

impl CacheKey {
    /// The key in a shared cache: `inferq:<version digest>:<hash>`.
    pub fn redis_key(&self, version: &Digest) -> String {
        format!("inferq:{version}:{}", self.0)
    }

    /// The hash itself.
    pub fn digest(&self) -> &Digest {
        &self.0
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the keys of one job have in common: all but its inputs.
#[derive(Debug, Clone)]
pub struct CacheScope {
    common: blake3::Hasher,
}

impl CacheScope {
    /// `tenant` is `None` where tenants share answers; `parameters` are only those the model lists
    /// as its own. The order of `outputs` counts, as it is the order of the answer.
    pub fn new(
        version: &Digest,
        tenant: Option<&str>,
        outputs: &[String],
        parameters: &Parameters,
    ) -> Self {
        let mut common = blake3::Hasher::new();
        common.update(b"inferq cache key 1");
        common.update(version.as_bytes());
        common.update(&[u8::from(tenant.is_some())]);
        part(&mut common, tenant.unwrap_or_default().as_bytes());
        number(&mut common, outputs.len());
        for output in outputs {
            part(&mut common, output.as_bytes());
        }
        number(&mut common, parameters.len());
        for (name, value) in parameters {
            part(&mut common, name.as_bytes());
            match value {
                Parameter::Bool(value) => common.update(&[0, u8::from(*value)]),
                Parameter::Int(value) => common.update(&[1]).update(&value.to_le_bytes()),
                Parameter::Float(value) => common.update(&[2]).update(&value.to_le_bytes()),
                Parameter::String(value) => {
                    common.update(&[3]);
                    part(&mut common, value.as_bytes());
                    &mut common
                }
            };
        }
        Self { common }
    }

    /// The key of a whole job; `inputs` in the model's order. With one row it equals
    /// [`Self::row`] of row 0.
    pub fn whole(&self, inputs: &[Tensor]) -> CacheKey {
        self.key(inputs.iter().map(|tensor| {
            let rows = tensor.shape.first().copied();
            (tensor, rows, &tensor.data[..])
        }))
    }

    /// The key of row `row`: each input as that row alone, of shape `[1, rest...]`. An input
    /// without that row counts with no data.
    pub fn row(&self, inputs: &[Tensor], row: usize) -> CacheKey {
        self.key(inputs.iter().map(|tensor| {
            let bytes = tensor.row_bytes(row).unwrap_or_default();
            (tensor, Some(1), bytes)
        }))
    }

    /// The keys of all rows; one walk over the data, unlike [`Self::row`] for each.
    pub fn rows(&self, inputs: &[Tensor]) -> Vec<CacheKey> {
        let split: Vec<_> = inputs.iter().map(Tensor::split_rows).collect();
        let rows = split.iter().map(Vec::len).min().unwrap_or(0);
        let key = |row: usize| {
            self.key(
                inputs
                    .iter()
                    .zip(&split)
                    .map(|(tensor, rows)| (tensor, Some(1), &rows[row][..])),
            )
        };
        (0..rows).map(key).collect()
    }

    /// Hashes inputs, each with the size of its axis 0 (if it has one) and its bytes.
    fn key<'a>(
        &self,
        inputs: impl ExactSizeIterator<Item = (&'a Tensor, Option<usize>, &'a [u8])>,
    ) -> CacheKey {
        let mut hasher = self.common.clone();
        number(&mut hasher, inputs.len());
        for (tensor, rows, bytes) in inputs {
            part(&mut hasher, tensor.name.as_bytes());
            part(&mut hasher, tensor.datatype.as_str().as_bytes());
            number(&mut hasher, tensor.shape.len());
            let dims = rows.into_iter().chain(tensor.shape.iter().skip(1).copied());
            dims.for_each(|dim| number(&mut hasher, dim));
            part(&mut hasher, bytes);
        }
        CacheKey(Digest::from_bytes(hasher.finalize().into()))
    }
}

fn part(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    number(hasher, bytes.len());
    hasher.update(bytes);
}

fn number(hasher: &mut blake3::Hasher, number: usize) {
    hasher.update(&(number as u64).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> CacheScope {
        CacheScope::new(&Digest::of(b"v1"), None, &[], &Parameters::new())
    }

    fn inputs(rows: &[[f32; 2]], words: &[&str]) -> Vec<Tensor> {
        let values: Vec<f32> = rows.iter().flatten().copied().collect();
        vec![
            Tensor::from_f32("x", vec![rows.len(), 2], &values).expect("fits"),
            Tensor::from_strings("s", vec![words.len()], words).expect("fits"),
        ]
    }

    #[test]
    fn a_row_has_one_key_whether_it_comes_alone_or_in_company() {
        let both = inputs(&[[1.0, 2.0], [3.0, 4.0]], &["a", "bb"]);
        let alone = inputs(&[[3.0, 4.0]], &["bb"]);
        assert_eq!(scope().row(&both, 1), scope().row(&alone, 0));
        assert_eq!(scope().whole(&alone), scope().row(&alone, 0));
        assert_eq!(
            scope().rows(&both),
            [scope().row(&both, 0), scope().row(&both, 1)]
        );
        assert_ne!(scope().row(&both, 0), scope().row(&both, 1));
        assert_ne!(scope().whole(&both), scope().row(&both, 0));
    }

    #[test]
    fn everything_that_determines_the_answer_changes_the_key() {
        let version = Digest::of(b"v1");
        let one = inputs(&[[1.0, 2.0]], &["a"]);
        let none = Parameters::new();
        let outputs = ["y".to_owned(), "z".to_owned()];
        let seed: Parameters = [("seed".to_owned(), Parameter::Int(1))].into();
        let float: Parameters = [("seed".to_owned(), Parameter::Float(1.0))].into();
        let scopes = [
            scope(),
            CacheScope::new(&Digest::of(b"v2"), None, &[], &none),
            CacheScope::new(&version, Some(""), &[], &none),
            CacheScope::new(&version, Some("t"), &[], &none),
            CacheScope::new(&version, None, &outputs[..1], &none),
            CacheScope::new(&version, None, &outputs, &none),
            CacheScope::new(&version, None, &[], &seed),
            CacheScope::new(&version, None, &[], &float),
        ];
        let mut keys: Vec<_> = scopes.iter().map(|scope| scope.whole(&one)).collect();
        let mut renamed = one.clone();
        renamed[0].name = "X".into();
        let mut reshaped = one.clone();
        reshaped[0].shape = vec![2, 1];
        let mut retyped = one.clone();
        retyped[0].datatype = crate::DataType::Int32;
        keys.extend([renamed, reshaped, retyped].map(|inputs| scope().whole(&inputs)));
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }

    #[test]
    fn the_shared_cache_sees_version_and_hash() {
        let version = Digest::of(b"v1");
        let key = scope().whole(&[]);
        assert_eq!(key.redis_key(&version), format!("inferq:{version}:{key}"));
    }
}
