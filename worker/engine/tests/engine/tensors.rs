//! Bytes to tensors and back.

use inferq_engine::{Element, Tensor, TensorError};

use crate::cases::string;

const FIXED: [Element; 12] = [
    Element::Bool,
    Element::U8,
    Element::U16,
    Element::U32,
    Element::U64,
    Element::I8,
    Element::I16,
    Element::I32,
    Element::I64,
    Element::F16,
    Element::F32,
    Element::F64,
];

#[test]
fn parts_lie_one_after_the_other_and_come_back_bit_by_bit() {
    for element in FIXED {
        let size = element.size().expect("these have one");
        let bytes: Vec<u8> = (0..6 * size)
            .map(|i| {
                if element == Element::Bool {
                    (i % 2) as u8
                } else {
                    (i * 37 + 200) as u8
                }
            })
            .collect();
        let (first, rest) = bytes.split_at(2 * size);
        let tensor = Tensor::stack(element, &[3, 2], &[first, &[], rest]).expect("six elements");
        assert_eq!((tensor.element(), tensor.shape()), (element, &[3, 2][..]));
        assert_eq!(tensor.bytes(), bytes, "{element}");
        assert_eq!(
            tensor.rows(1..3).expect("two rows"),
            &bytes[2 * size..],
            "{element}"
        );
    }
}

#[test]
fn strings_come_back_with_their_lengths() {
    let parts = [
        string("one"),
        [string(""), string("dreißig")].concat(),
        string("4"),
    ];
    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let tensor = Tensor::stack(Element::String, &[2, 2], &slices).expect("four strings");
    assert_eq!(tensor.bytes(), parts.concat());
    assert_eq!(
        tensor.rows(1..2).expect("a row"),
        [string("dreißig"), string("4")].concat()
    );
}

#[test]
fn a_scalar_has_one_element_and_no_rows() {
    let tensor = Tensor::stack(Element::F64, &[], &[&[7; 8]]).expect("one element");
    assert_eq!(tensor.bytes(), [7; 8].as_slice());
    assert_eq!(
        tensor.rows(0..1),
        Err(TensorError::Rows {
            start: 0,
            end: 1,
            shape: vec![]
        })
    );
}

#[test]
fn wrong_lengths_are_told_with_both_numbers() {
    let error =
        Tensor::stack(Element::F32, &[1, 64], &[&[0; 252]]).expect_err("a value is missing");
    assert_eq!(
        error.to_string(),
        "252 bytes for shape [1, 64] of f32, which takes 256"
    );
}

#[test]
fn shapes_beyond_the_address_space_are_refused_without_allocating() {
    for shape in [&[usize::MAX, 2][..], &[1 << 62, 1], &[1 << 31, 1 << 31]] {
        let error = Tensor::stack(Element::F32, shape, &[]).expect_err("too large");
        assert!(
            matches!(
                error,
                TensorError::TooLarge { .. } | TensorError::Length { .. }
            ),
            "{error}"
        );
        let error = Tensor::stack(Element::String, shape, &[]).expect_err("too large");
        assert!(
            matches!(
                error,
                TensorError::TooLarge { .. } | TensorError::Strings { .. }
            ),
            "{error}"
        );
    }
}

#[test]
fn a_bool_is_zero_or_one() {
    let error = Tensor::stack(Element::Bool, &[4], &[&[0, 1], &[1, 2]]).expect_err("2 is no bool");
    assert_eq!(error, TensorError::NotBool { index: 3, value: 2 });
}

#[test]
fn strings_that_do_not_add_up_are_refused() {
    let refuse = |shape: &[usize], bytes: &[u8]| {
        Tensor::stack(Element::String, shape, &[bytes]).expect_err("not these strings")
    };
    let two = [string("a"), string("b")].concat();
    assert_eq!(
        refuse(&[3], &[two.clone(), vec![0, 0]].concat()),
        TensorError::Strings {
            found: 2,
            expected: 3
        }
    );
    assert_eq!(
        refuse(&[1], &two),
        TensorError::Strings {
            found: 1,
            expected: 1
        }
    );
    assert_eq!(
        refuse(&[1], &[9, 0, 0, 0, b'a']),
        TensorError::Strings {
            found: 0,
            expected: 1
        }
    );
    assert_eq!(
        refuse(&[1], &[1, 0, 0, 0, 0xff]),
        TensorError::NotUtf8 { index: 0 }
    );
    assert_eq!(
        refuse(&[1 << 40], &[0; 64]),
        TensorError::Strings {
            found: 16,
            expected: 1 << 40
        }
    );
}
