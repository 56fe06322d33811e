//! One datatype into another, only where no value changes.

use crate::number::{Misfit, Number, Rounding};
use crate::tensor::{DataType, Tensor};

/// Why a tensor cannot become another datatype.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum CoerceError {
    /// Text and bytes have no number, and no number has text.
    Kinds,
    /// The first element that would change.
    Value { index: usize, misfit: Misfit },
}

/// `tensor` as `datatype`. Numbers and booleans (as 0 and 1) change form only if every value stays
/// the same: INT64 3 is FP32 3.0, but FP64 0.1 is no FP32.
pub(crate) fn coerce(tensor: Tensor, datatype: DataType) -> Result<Tensor, CoerceError> {
    if tensor.datatype == datatype {
        return Ok(tensor);
    }
    let (Some(from), Some(to)) = (tensor.datatype.size(), datatype.size()) else {
        return Err(CoerceError::Kinds);
    };
    let mut data = Vec::with_capacity(tensor.data.len() / from * to);
    for (index, element) in tensor.data.chunks_exact(from).enumerate() {
        // The chunk has the size of its datatype, so there is always a number to read.
        let number = Number::read(tensor.datatype, element).ok_or(CoerceError::Kinds)?;
        number
            .write(datatype, Rounding::Exact, &mut data)
            .map_err(|misfit| CoerceError::Value { index, misfit })?;
    }
    Ok(Tensor {
        datatype,
        data: data.into(),
        ..tensor
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(datatype: DataType, data: Vec<u8>) -> Tensor {
        let elements = data.len() / datatype.size().expect("a number");
        Tensor::new("x", datatype, vec![elements], data.into()).expect("fits")
    }

    #[test]
    fn whole_numbers_become_floats_and_back() {
        let ints: Vec<u8> = [3_i64, -7].iter().flat_map(|v| v.to_le_bytes()).collect();
        let floats = coerce(tensor(DataType::Int64, ints.clone()), DataType::Fp32).expect("exact");
        assert_eq!(floats.to_f32(), Ok(vec![3.0, -7.0]));
        let back = coerce(floats, DataType::Int64).expect("whole");
        assert_eq!(back.data, ints);
        let flags = coerce(tensor(DataType::Bool, vec![0, 1]), DataType::Fp32).expect("exact");
        assert_eq!(flags.to_f32(), Ok(vec![0.0, 1.0]));
    }

    #[test]
    fn the_first_value_that_would_change_is_named() {
        let doubles: Vec<u8> = [0.5_f64, 0.1]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let error = coerce(tensor(DataType::Fp64, doubles), DataType::Fp32).expect_err("0.1");
        let CoerceError::Value { index, misfit } = error else {
            panic!("{error:?}")
        };
        assert_eq!(
            (index, misfit.to_string()),
            (1, "0.1 is not exactly FP32".into())
        );
    }

    #[test]
    fn text_never_becomes_a_number() {
        let text = Tensor::from_strings("x", vec![1], &["1"]).expect("fits");
        assert_eq!(coerce(text, DataType::Int8), Err(CoerceError::Kinds));
        let number = tensor(DataType::Int8, vec![1]);
        assert_eq!(coerce(number, DataType::Bytes), Err(CoerceError::Kinds));
    }
}
