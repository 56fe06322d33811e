//! One number on its way between datatypes: every element type fits one of two wide forms.

use half::{bf16, f16};

use crate::datatype::DataType;

/// A number wide enough for every element but text: integers and booleans as `Int`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// A whole number, or 0 and 1 for a boolean.
    Int(i128),
    /// A floating-point number of any width.
    Float(f64),
}

/// How a number may become a float.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest value, as a decimal that somebody wrote must be.
    Nearest,
    /// Only if the value is the same, as between tensors.
    Exact,
}

/// Why a number does not fit a datatype.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Misfit {
    number: Number,
    datatype: DataType,
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let datatype = self.datatype;
        match self.number {
            Number::Float(float) if datatype.is_float() && float.is_finite() => {
                let wide = Misfit::overflows(float, datatype);
                let why = if wide { "is beyond" } else { "is not exactly" };
                write!(f, "{float:?} {why} {datatype}")
            }
            Number::Float(float) if float.fract() != 0.0 => {
                write!(f, "{float:?} is not a whole number, which {datatype} takes")
            }
            Number::Float(float) => write!(f, "{float:?} does not fit {datatype}"),
            Number::Int(int) if datatype.is_float() => {
                let wide = Misfit::overflows(int as f64, datatype);
                let why = if wide { "is beyond" } else { "is not exactly" };
                write!(f, "{int} {why} {datatype}")
            }
            Number::Int(int) => write!(f, "{int} does not fit {datatype}"),
        }
    }
}

impl Misfit {
    fn overflows(float: f64, datatype: DataType) -> bool {
        !narrow(float, datatype).is_finite()
    }
}

impl Number {
    /// The element at the start of `bytes`, little-endian; `None` for BYTES or too few bytes.
    pub fn read(datatype: DataType, bytes: &[u8]) -> Option<Self> {
        Some(match datatype {
            DataType::Bool | DataType::Uint8 => Self::Int((*bytes.first()?).into()),
            DataType::Uint16 => Self::Int(u16::from_le_bytes(*bytes.first_chunk()?).into()),
            DataType::Uint32 => Self::Int(u32::from_le_bytes(*bytes.first_chunk()?).into()),
            DataType::Uint64 => Self::Int(u64::from_le_bytes(*bytes.first_chunk()?).into()),
            DataType::Int8 => Self::Int(i8::from_le_bytes(*bytes.first_chunk()?).into()),
            DataType::Int16 => Self::Int(i16::from_le_bytes(*bytes.first_chunk()?).into()),
            DataType::Int32 => Self::Int(i32::from_le_bytes(*bytes.first_chunk()?).into()),
            DataType::Int64 => Self::Int(i64::from_le_bytes(*bytes.first_chunk()?).into()),
            DataType::Fp16 => Self::Float(f16::from_le_bytes(*bytes.first_chunk()?).into()),
            DataType::Bf16 => Self::Float(bf16::from_le_bytes(*bytes.first_chunk()?).into()),
            DataType::Fp32 => Self::Float(f32::from_le_bytes(*bytes.first_chunk()?).into()),
            DataType::Fp64 => Self::Float(f64::from_le_bytes(*bytes.first_chunk()?)),
            DataType::Bytes => return None,
        })
    }

    /// Appends this number as an element of `datatype`, little-endian.
    ///
    /// Infinities and NaN stay what they are among floats. A float becomes an integer only if it
    /// is whole; a finite number never becomes infinite.
    ///
    /// # Errors
    /// [`Misfit`] if the datatype cannot hold the number; nothing is appended then.
    pub fn write(
        self,
        datatype: DataType,
        rounding: Rounding,
        out: &mut Vec<u8>,
    ) -> Result<(), Misfit> {
        if datatype.is_float() {
            return self.write_float(datatype, rounding, out);
        }
        let misfit = Misfit {
            number: self,
            datatype,
        };
        // Beyond 2^53 a float that looks whole may be a rounded decimal; 2^64 is beyond all integers.
        let whole_below = match rounding {
            Rounding::Nearest => 9_007_199_254_740_992.0,
            Rounding::Exact => 18_446_744_073_709_551_616.0,
        };
        let int = match self {
            Self::Int(int) => int,
            Self::Float(float) if float.fract() == 0.0 && float.abs() <= whole_below => {
                float as i128
            }
            Self::Float(_) => return Err(misfit),
        };
        let fits = match datatype {
            DataType::Bool => (0..=1).contains(&int) && put(out, u8::try_from(int)),
            DataType::Uint8 => put(out, u8::try_from(int)),
            DataType::Uint16 => put(out, u16::try_from(int).map(u16::to_le_bytes)),
            DataType::Uint32 => put(out, u32::try_from(int).map(u32::to_le_bytes)),
            DataType::Uint64 => put(out, u64::try_from(int).map(u64::to_le_bytes)),
            DataType::Int8 => put(out, i8::try_from(int).map(i8::to_le_bytes)),
            DataType::Int16 => put(out, i16::try_from(int).map(i16::to_le_bytes)),
            DataType::Int32 => put(out, i32::try_from(int).map(i32::to_le_bytes)),
            DataType::Int64 => put(out, i64::try_from(int).map(i64::to_le_bytes)),
            _ => false,
        };
        if fits { Ok(()) } else { Err(misfit) }
    }

    fn write_float(
        self,
        datatype: DataType,
        rounding: Rounding,
        out: &mut Vec<u8>,
    ) -> Result<(), Misfit> {
        let misfit = Misfit {
            number: self,
            datatype,
        };
        let (float, same) = match self {
            // `as` saturates, so 2^127 needs no special case: it comes back as another number.
            Self::Int(int) => (int as f64, (int as f64) as i128 == int),
            Self::Float(float) => (float, true),
        };
        let narrow = narrow(float, datatype);
        let same = same && (narrow == float || float.is_nan());
        let overflows = float.is_finite() && !narrow.is_finite();
        if overflows || (rounding == Rounding::Exact && !same) {
            return Err(misfit);
        }
        match datatype {
            DataType::Fp16 => out.extend(f16::from_f64(float).to_le_bytes()),
            DataType::Bf16 => out.extend(bf16::from_f64(float).to_le_bytes()),
            DataType::Fp32 => out.extend((float as f32).to_le_bytes()),
            _ => out.extend(float.to_le_bytes()),
        }
        Ok(())
    }
}

/// The nearest value of a float datatype.
fn narrow(float: f64, datatype: DataType) -> f64 {
    match datatype {
        DataType::Fp16 => f16::from_f64(float).to_f64(),
        DataType::Bf16 => bf16::from_f64(float).to_f64(),
        DataType::Fp32 => f64::from(float as f32),
        _ => float,
    }
}

/// Appends the bytes if there are any.
fn put<B: Bytes, E>(out: &mut Vec<u8>, bytes: Result<B, E>) -> bool {
    bytes.map(|bytes| bytes.append(out)).is_ok()
}

/// Little-endian bytes of one element.
trait Bytes {
    fn append(self, out: &mut Vec<u8>);
}

impl Bytes for u8 {
    fn append(self, out: &mut Vec<u8>) {
        out.push(self);
    }
}

impl<const N: usize> Bytes for [u8; N] {
    fn append(self, out: &mut Vec<u8>) {
        out.extend(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(number: Number, datatype: DataType, rounding: Rounding) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        let done = number.write(datatype, rounding, &mut out);
        done.map(|()| out).map_err(|misfit| misfit.to_string())
    }

    #[test]
    fn every_number_type_reads_back_its_own_extremes() {
        let extremes = [
            (DataType::Bool, vec![1]),
            (DataType::Uint64, u64::MAX.to_le_bytes().to_vec()),
            (DataType::Int64, i64::MIN.to_le_bytes().to_vec()),
            (DataType::Int8, vec![0x80]),
            (DataType::Fp16, f16::MAX.to_le_bytes().to_vec()),
            (DataType::Bf16, bf16::MIN_POSITIVE.to_le_bytes().to_vec()),
            (DataType::Fp32, f32::MIN.to_le_bytes().to_vec()),
            (DataType::Fp64, f64::INFINITY.to_le_bytes().to_vec()),
        ];
        for (datatype, bytes) in extremes {
            let number = Number::read(datatype, &bytes).expect("enough bytes");
            assert_eq!(
                write(number, datatype, Rounding::Exact),
                Ok(bytes),
                "{datatype}"
            );
        }
        assert_eq!(Number::read(DataType::Fp32, &[0; 3]), None);
    }

    #[test]
    fn exact_conversion_refuses_any_loss() {
        let exact = |number, datatype| write(number, datatype, Rounding::Exact);
        assert!(exact(Number::Int(1 << 24), DataType::Fp32).is_ok());
        assert!(exact(Number::Int((1 << 24) + 1), DataType::Fp32).is_err());
        assert!(exact(Number::Int(i128::from(u64::MAX)), DataType::Fp64).is_err());
        assert!(exact(Number::Float(0.5), DataType::Fp32).is_ok());
        assert!(exact(Number::Float(f64::NAN), DataType::Fp16).is_ok());
        assert_eq!(
            exact(Number::Float(0.1), DataType::Fp32),
            Err("0.1 is not exactly FP32".into())
        );
        assert!(exact(Number::Float(9e18), DataType::Int64).is_ok());
        assert!(exact(Number::Float(1e19), DataType::Int64).is_err());
    }

    #[test]
    fn a_decimal_goes_to_the_nearest_float_but_never_to_infinity() {
        let near = |number, datatype| write(number, datatype, Rounding::Nearest);
        assert_eq!(
            near(Number::Float(0.1), DataType::Fp32),
            Ok(0.1_f32.to_le_bytes().into())
        );
        assert_eq!(
            near(Number::Float(1e39), DataType::Fp32).expect_err("too large"),
            "1e39 is beyond FP32"
        );
        assert!(near(Number::Float(65520.0), DataType::Fp16).is_err());
        assert!(near(Number::Int(70000), DataType::Fp16).is_err());
    }

    #[test]
    fn integers_must_be_whole_and_fit() {
        let near = |number, datatype| write(number, datatype, Rounding::Nearest);
        assert_eq!(near(Number::Float(3.0), DataType::Int8), Ok(vec![3]));
        assert_eq!(
            near(Number::Float(1.5), DataType::Int64),
            Err("1.5 is not a whole number, which INT64 takes".into())
        );
        assert_eq!(
            near(Number::Int(300), DataType::Uint8),
            Err("300 does not fit UINT8".into())
        );
        assert_eq!(
            near(Number::Int(-1), DataType::Uint64),
            Err("-1 does not fit UINT64".into())
        );
        assert_eq!(
            near(Number::Int(2), DataType::Bool),
            Err("2 does not fit BOOL".into())
        );
        assert!(
            near(Number::Float(1e16), DataType::Int64).is_err(),
            "perhaps rounded"
        );
        assert!(near(Number::Float(f64::NAN), DataType::Int8).is_err());
    }
}
