//! The registers a kernel works with, behind one trait, and which of them this processor has.
//!
//! A kernel is a generic function that is always inlined; [`dispatch`] calls it inside a function
//! compiled for the wanted instructions. Without that its operations would be calls.

#![allow(
    unsafe_code,
    reason = "registers are loaded from and stored to raw pointers; each function says what they must point to"
)]

use std::sync::OnceLock;

/// Instructions a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    /// Plain Rust, eight lanes; the compiler makes of it what the target always has.
    Portable,
    /// AVX2 and FMA: eight lanes, 16 registers.
    Avx2,
    /// AVX-512F: sixteen lanes, 32 registers.
    Avx512,
}

impl Isa {
    /// The best that this processor has.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| *Self::available().last().unwrap_or(&Self::Portable))
    }

    /// All that this processor has, the best last.
    pub(crate) fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "only some targets have more than one")]
        let mut all = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Self::Avx2);
            }
            if is_x86_feature_detected!("avx512f") {
                all.push(Self::Avx512);
            }
        }
        all
    }

    /// `f32` in a register.
    pub(crate) fn lanes(self) -> usize {
        match self {
            Self::Portable | Self::Avx2 => 8,
            Self::Avx512 => 16,
        }
    }
}

/// A kernel, written once for all registers.
pub(crate) trait Kernel {
    /// What it gives.
    type Output;

    /// Does the work. Implementations are marked `#[inline(always)]`.
    fn run<S: Simd>(self) -> Self::Output;
}

/// Runs `kernel` compiled for `isa`.
///
/// # Panics
/// If this processor does not have `isa`.
pub(crate) fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn avx2<K: Kernel>(kernel: K) -> K::Output {
            kernel.run::<x86::Avx2>()
        }
        #[target_feature(enable = "avx512f")]
        fn avx512<K: Kernel>(kernel: K) -> K::Output {
            kernel.run::<x86::Avx512>()
        }
        match isa {
            Isa::Portable => {}
            Isa::Avx2 => {
                assert!(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"));
                // SAFETY: the processor has the instructions, as the line before found.
                return unsafe { avx2(kernel) };
            }
            Isa::Avx512 => {
                assert!(is_x86_feature_detected!("avx512f"));
                // SAFETY: as above.
                return unsafe { avx512(kernel) };
            }
        }
    }
    assert_eq!(
        isa,
        Isa::Portable,
        "another processor has these instructions"
    );
    kernel.run::<Portable>()
}

/// One register of `f32` and what can be done with it.
///
/// # Safety
/// The functions of an implementation may only run on a processor that has its instructions, which
/// [`dispatch`] sees to. `load` and `store` need [`LANES`](Self::LANES) elements behind the pointer,
/// of any alignment.
pub(crate) unsafe trait Simd: Copy {
    const LANES: usize;
    /// Rows of a tile two registers wide: as many as leave registers for the operands.
    const TILE_ROWS: usize;
    type V: Copy;

    unsafe fn splat(value: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, value: Self::V);
    unsafe fn add(left: Self::V, right: Self::V) -> Self::V;
    unsafe fn mul(left: Self::V, right: Self::V) -> Self::V;
    /// Two to the power of `exponent`, a whole number from -126 to 127; nothing at -127.
    unsafe fn power_of_two(exponent: Self::V) -> Self::V;
    /// `left * right + sum`, rounded once where the processor can.
    unsafe fn mul_add(left: Self::V, right: Self::V, sum: Self::V) -> Self::V;
    /// Asks for the cache line at `place`, which need not be there, into the second cache.
    unsafe fn prefetch(place: *const f32);
    /// The larger; `value` if one of them is NaN.
    unsafe fn at_least(value: Self::V, bound: Self::V) -> Self::V;
    /// The smaller; `value` if one of them is NaN.
    unsafe fn at_most(value: Self::V, bound: Self::V) -> Self::V;
}

/// The exponential of numbers that are not positive, within 2 ulp; nothing below -87.5. NaN stays NaN.
///
/// Source: Cephes, `expf`: two to the power of a whole number, times a polynomial of what is left.
///
/// # Safety
/// See [`Simd`].
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(value: S::V) -> S::V {
    const POLYNOMIAL: [f32; 6] = [
        1.987_569_1e-4,
        1.398_2e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        5e-1,
    ];
    /// Added and taken away again, it rounds to a whole number.
    const ROUND: f32 = 12_582_912.0;
    // SAFETY: the caller's.
    unsafe {
        // At -88 the whole number is -127, whose power is nothing.
        let value = S::at_least(value, S::splat(-88.0));
        let shifted = S::mul_add(value, S::splat(std::f32::consts::LOG2_E), S::splat(ROUND));
        let whole = S::add(shifted, S::splat(-ROUND));
        // ln 2 in two parts, so that nothing is lost when it is taken away.
        let rest = S::mul_add(whole, S::splat(-0.693_359_4), value);
        let rest = S::mul_add(whole, S::splat(2.121_944_4e-4), rest);
        let mut sum = S::splat(POLYNOMIAL[0]);
        for coefficient in &POLYNOMIAL[1..] {
            sum = S::mul_add(sum, rest, S::splat(*coefficient));
        }
        let sum = S::mul_add(S::mul(sum, rest), rest, rest);
        S::mul(S::add(sum, S::splat(1.0)), S::power_of_two(whole))
    }
}

/// The sum over the lanes, from the first to the last.
///
/// # Safety
/// See [`Simd`].
#[inline(always)]
pub(crate) unsafe fn total<S: Simd>(sum: S::V) -> f32 {
    let mut lanes = [0.0; 16];
    // SAFETY: sixteen elements hold the widest register.
    unsafe { S::store(lanes.as_mut_ptr(), sum) };
    lanes[..S::LANES].iter().sum()
}

/// Eight lanes in plain Rust.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn each(function: impl Fn(usize) -> f32) -> [f32; 8] {
    std::array::from_fn(function)
}

// SAFETY: it uses no special instructions.
unsafe impl Simd for Portable {
    const LANES: usize = 8;
    const TILE_ROWS: usize = 4;
    type V = [f32; 8];

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::V {
        [value; 8]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        // SAFETY: the caller has eight elements there.
        unsafe { from.cast::<[f32; 8]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Self::V) {
        // SAFETY: the caller has room for eight elements there.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(value) }
    }

    #[inline(always)]
    unsafe fn add(left: Self::V, right: Self::V) -> Self::V {
        each(|lane| left[lane] + right[lane])
    }

    #[inline(always)]
    unsafe fn mul(left: Self::V, right: Self::V) -> Self::V {
        each(|lane| left[lane] * right[lane])
    }

    #[inline(always)]
    unsafe fn power_of_two(exponent: Self::V) -> Self::V {
        // Wrapping, since of a NaN anything may come here.
        each(|lane| f32::from_bits((exponent[lane] as i32).wrapping_add(127).cast_unsigned() << 23))
    }

    #[inline(always)]
    unsafe fn mul_add(left: Self::V, right: Self::V, sum: Self::V) -> Self::V {
        // Fused only where that is an instruction; elsewhere it would be a slow function.
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            each(|lane| left[lane].mul_add(right[lane], sum[lane]))
        } else {
            each(|lane| left[lane] * right[lane] + sum[lane])
        }
    }

    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}

    #[inline(always)]
    unsafe fn at_least(value: Self::V, bound: Self::V) -> Self::V {
        each(|lane| {
            if value[lane] < bound[lane] {
                bound[lane]
            } else {
                value[lane]
            }
        })
    }

    #[inline(always)]
    unsafe fn at_most(value: Self::V, bound: Self::V) -> Self::V {
        each(|lane| {
            if value[lane] > bound[lane] {
                bound[lane]
            } else {
                value[lane]
            }
        })
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Simd;
    use std::arch::x86_64::*;

    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Avx2;

    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Avx512;

    macro_rules! simd {
        ($name:ident, $lanes:literal, $tile_rows:literal, $register:ident, $set1:ident, $loadu:ident, $storeu:ident,
         $add:ident, $mul:ident, $fmadd:ident, $max:ident, $min:ident,
         $to_integers:ident, $set1_integers:ident, $add_integers:ident, $shift_left:ident,
         $as_floats:ident) => {
            // SAFETY: these are instructions of the set it is named for, and `dispatch` checks it.
            unsafe impl Simd for $name {
                const LANES: usize = $lanes;
                const TILE_ROWS: usize = $tile_rows;
                type V = $register;

                #[inline(always)]
                unsafe fn splat(value: f32) -> Self::V {
                    // SAFETY: the caller runs where the instruction exists, here and below.
                    unsafe { $set1(value) }
                }

                #[inline(always)]
                unsafe fn load(from: *const f32) -> Self::V {
                    // SAFETY: the caller has a register's worth of elements there.
                    unsafe { $loadu(from) }
                }

                #[inline(always)]
                unsafe fn store(to: *mut f32, value: Self::V) {
                    // SAFETY: the caller has room for a register there.
                    unsafe { $storeu(to, value) }
                }

                #[inline(always)]
                unsafe fn add(left: Self::V, right: Self::V) -> Self::V {
                    // SAFETY: see `splat`.
                    unsafe { $add(left, right) }
                }

                #[inline(always)]
                unsafe fn mul(left: Self::V, right: Self::V) -> Self::V {
                    // SAFETY: see `splat`.
                    unsafe { $mul(left, right) }
                }

                #[inline(always)]
                unsafe fn power_of_two(exponent: Self::V) -> Self::V {
                    // SAFETY: see `splat`.
                    unsafe {
                        let biased = $add_integers($to_integers(exponent), $set1_integers(127));
                        $as_floats($shift_left::<23>(biased))
                    }
                }

                #[inline(always)]
                unsafe fn mul_add(left: Self::V, right: Self::V, sum: Self::V) -> Self::V {
                    // SAFETY: see `splat`.
                    unsafe { $fmadd(left, right, sum) }
                }

                #[inline(always)]
                unsafe fn prefetch(place: *const f32) {
                    // SAFETY: asking for memory that is not there does nothing.
                    unsafe { _mm_prefetch::<_MM_HINT_T1>(place.cast()) }
                }

                // Of a NaN and a number these instructions give their second operand.
                #[inline(always)]
                unsafe fn at_least(value: Self::V, bound: Self::V) -> Self::V {
                    // SAFETY: see `splat`.
                    unsafe { $max(bound, value) }
                }

                #[inline(always)]
                unsafe fn at_most(value: Self::V, bound: Self::V) -> Self::V {
                    // SAFETY: see `splat`.
                    unsafe { $min(bound, value) }
                }
            }
        };
    }

    simd!(
        Avx2,
        8,
        6,
        __m256,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_add_ps,
        _mm256_mul_ps,
        _mm256_fmadd_ps,
        _mm256_max_ps,
        _mm256_min_ps,
        _mm256_cvtps_epi32,
        _mm256_set1_epi32,
        _mm256_add_epi32,
        _mm256_slli_epi32,
        _mm256_castsi256_ps
    );
    simd!(
        Avx512,
        16,
        12,
        __m512,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_add_ps,
        _mm512_mul_ps,
        _mm512_fmadd_ps,
        _mm512_max_ps,
        _mm512_min_ps,
        _mm512_cvtps_epi32,
        _mm512_set1_epi32,
        _mm512_add_epi32,
        _mm512_slli_epi32,
        _mm512_castsi512_ps
    );
}
