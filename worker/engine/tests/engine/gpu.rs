//! The dense layer on whatever adapter there is, Mesa's software one included, against sums in `f64`.

use std::sync::OnceLock;

use inferq_engine::gpu::{
    Activation, AdapterInfo, AdapterKind, Gpu, GpuError, GpuPolicy, Linear, adapters,
};

/// One device for all tests: each new one compiles the shader again.
fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(open)
}

fn open() -> Gpu {
    match Gpu::open(GpuPolicy::Force, None) {
        Ok(Some(gpu)) => gpu,
        other => panic!(
            "these tests need a graphics card or Mesa's software Vulkan, which deploy/setup.sh installs \
             (Debian: mesa-vulkan-drivers): {other:?}"
        ),
    }
}

/// Repeatable numbers in -1 to 1.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (f64::from(state) / f64::from(u32::MAX) * 2.0 - 1.0) as f32
        })
        .collect()
}

struct Layer {
    k: usize,
    n: usize,
    weights: Vec<f32>,
    bias: Vec<f32>,
    activation: Activation,
}

impl Layer {
    fn new(k: usize, n: usize, activation: Activation) -> Self {
        Layer {
            k,
            n,
            weights: numbers(k * n, 3),
            bias: numbers(n, 5),
            activation,
        }
    }

    fn upload(&self, gpu: &Gpu) -> Linear {
        Linear::new(
            gpu,
            [self.k, self.n],
            &self.weights,
            &self.bias,
            self.activation,
        )
        .expect("the layer fits any device")
    }

    /// The exact value of one result and how far the kernel may be from it.
    fn exact(&self, row: &[f32], column: usize) -> (f64, f64) {
        let unit = 2f64.powi(-24);
        let products = row
            .iter()
            .zip(self.weights[column..].iter().step_by(self.n));
        let products: Vec<f64> = products
            .map(|(a, w)| f64::from(*a) * f64::from(*w))
            .collect();
        let bias = f64::from(self.bias[column]);
        let mut value = products.iter().sum::<f64>() + bias;
        let magnitude: f64 = products.iter().map(|product| product.abs()).sum();
        let ulp = 2.0
            * unit
            * value
                .abs()
                .max(bias.abs())
                .max(f64::from(f32::MIN_POSITIVE));
        if self.activation == Activation::Relu {
            value = value.max(0.0);
        }
        (value, (self.k as f64).sqrt() * unit * magnitude + 4.0 * ulp)
    }

    fn assert_close(&self, rows: &[f32], result: &[f32]) {
        assert_eq!(result.len(), rows.len() / self.k * self.n);
        for (row, result) in rows.chunks_exact(self.k).zip(result.chunks_exact(self.n)) {
            for (column, found) in result.iter().enumerate() {
                let (exact, allowed) = self.exact(row, column);
                let error = (f64::from(*found) - exact).abs();
                let (k, n) = (self.k, self.n);
                assert!(
                    error <= allowed,
                    "k {k}, n {n}: {found} for {exact}, {error:e} > {allowed:e}"
                );
            }
        }
    }
}

#[test]
fn odd_sizes_are_within_the_stated_bound() {
    let sizes = [
        (1, 1, 1),
        (1, 4, 32),
        (2, 3, 5),
        (3, 5, 7),
        (15, 31, 33),
        (16, 16, 32),
        (17, 18, 31),
        (33, 64, 10),
        (5, 67, 45),
        (40, 96, 96),
    ];
    for (m, k, n) in sizes {
        for activation in [Activation::None, Activation::Relu] {
            let layer = Layer::new(k, n, activation);
            let rows = numbers(m * k, 7);
            let result = layer.upload(gpu()).run(&rows, m).expect("it runs");
            layer.assert_close(&rows, &result);
        }
    }
}

#[test]
fn large_and_small_numbers_are_within_the_stated_bound() {
    let layer = Layer::new(37, 11, Activation::None);
    let rows: Vec<f32> = numbers(3 * 37, 9)
        .into_iter()
        .enumerate()
        .map(|(i, x)| x * [1e4, 1.0, 1e-4, 0.0][i % 4])
        .collect();
    let result = layer.upload(gpu()).run(&rows, 3).expect("it runs");
    layer.assert_close(&rows, &result);
}

#[test]
fn a_row_has_the_same_bits_in_a_batch_of_any_size() {
    let layer = Layer::new(29, 13, Activation::Relu);
    let on_gpu = layer.upload(gpu());
    let rows = numbers(33 * 29, 11);
    let all = on_gpu.run(&rows, 33).expect("it runs");
    for size in [1, 2, 3, 16, 17, 32] {
        let start = 33 - size;
        let part = on_gpu.run(&rows[start * 29..], size).expect("it runs");
        let same = part
            .iter()
            .zip(&all[start * 13..])
            .all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{size} rows");
    }
}

#[test]
fn a_not_a_number_row_spoils_only_itself_and_survives_relu() {
    let layer = Layer::new(8, 8, Activation::Relu);
    let mut rows = numbers(5 * 8, 13);
    rows[2 * 8 + 3] = f32::NAN;
    let result = layer.upload(gpu()).run(&rows, 5).expect("it runs");
    for (row, result) in result.chunks_exact(8).enumerate() {
        assert!(
            result.iter().all(|value| value.is_nan() == (row == 2)),
            "row {row}: {result:?}"
        );
    }
}

#[test]
fn threads_share_a_layer() {
    let layer = Layer::new(21, 19, Activation::None);
    let on_gpu = layer.upload(gpu());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (layer, on_gpu) = (&layer, &on_gpu);
            scope.spawn(move || {
                for round in 0..5 {
                    let m = 1 + (3 * thread + round) % 9;
                    let rows = numbers(m * 21, (100 * thread + round) as u32);
                    layer.assert_close(&rows, &on_gpu.run(&rows, m).expect("it runs"));
                }
            });
        }
    });
}

#[test]
fn wrong_sizes_are_refused_before_anything_is_sent() {
    let error =
        Linear::new(gpu(), [3, 4], &[0.0; 11], &[0.0; 4], Activation::None).expect_err("12");
    assert_eq!(
        error.to_string(),
        "the weight matrix has 11 values, its shape takes 12"
    );
    let error = Linear::new(gpu(), [0, 4], &[], &[0.0; 4], Activation::None).expect_err("no input");
    assert_eq!(error, GpuError::Empty("the weight matrix"));
    let layer = Layer::new(3, 4, Activation::None).upload(gpu());
    let error = layer
        .run(&[0.0; 7], 2)
        .expect_err("two rows are six values");
    assert_eq!(
        error,
        GpuError::Shape {
            what: "the batch",
            got: 7,
            expected: 6
        }
    );
    let many = 65_536 * 16;
    let error = layer
        .run(&vec![0.0; many * 3], many)
        .expect_err("more than the grid takes");
    assert!(
        matches!(
            error,
            GpuError::Limit {
                what: "the number of rows",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(layer.run(&[], 0), Ok(vec![]));
}

#[test]
fn a_lost_device_is_an_error_and_a_new_one_works() {
    let lost = open();
    let layer = Layer::new(6, 6, Activation::None);
    let on_gpu = layer.upload(&lost);
    let rows = numbers(6, 17);
    on_gpu.run(&rows, 1).expect("it runs");
    assert_eq!(lost.fault(), None);
    lost.destroy();
    assert!(matches!(on_gpu.run(&rows, 1), Err(GpuError::Lost(_))));
    assert!(matches!(lost.fault(), Some(GpuError::Lost(_))));
    layer.assert_close(
        &rows,
        &layer.upload(&open()).run(&rows, 1).expect("it runs"),
    );
}

#[test]
fn adapters_are_listed_with_kind_and_backend() {
    let found = adapters();
    assert!(
        found.iter().any(|adapter| adapter == gpu().info()),
        "{found:?}"
    );
    assert!(
        found
            .iter()
            .all(|adapter| !adapter.name.is_empty() && !adapter.backend.is_empty())
    );
}

#[test]
fn off_opens_nothing() {
    assert!(
        Gpu::open(GpuPolicy::Off, None)
            .expect("nothing to fail")
            .is_none()
    );
}

#[test]
fn a_name_that_no_adapter_has_is_told_with_those_there_are() {
    let error =
        Gpu::open(GpuPolicy::Force, Some("no such card")).expect_err("nobody has this name");
    assert!(error.to_string().contains(&gpu().info().name), "{error}");
}

fn adapter(name: &str, kind: AdapterKind) -> AdapterInfo {
    AdapterInfo {
        name: name.to_owned(),
        kind,
        backend: String::new(),
        driver: String::new(),
    }
}

#[test]
fn auto_never_takes_a_software_adapter() {
    let software = [
        adapter("llvmpipe", AdapterKind::Software),
        adapter("?", AdapterKind::Unknown),
    ];
    assert_eq!(GpuPolicy::Auto.choose(&software, None), None);
    assert_eq!(GpuPolicy::Auto.choose(&software, Some("llvm")), None);
    assert_eq!(GpuPolicy::Force.choose(&software, Some("LLVM")), Some(0));
    assert_eq!(GpuPolicy::Force.choose(&software, None), Some(1));
}

#[test]
fn a_card_comes_before_a_processor_and_hardware_before_software() {
    let all = [
        adapter("llvmpipe", AdapterKind::Software),
        adapter("Iris", AdapterKind::Integrated),
        adapter("Radeon", AdapterKind::Discrete),
        adapter("Radeon", AdapterKind::Discrete),
    ];
    for policy in [GpuPolicy::Auto, GpuPolicy::Force] {
        assert_eq!(policy.choose(&all, None), Some(2));
        assert_eq!(policy.choose(&all, Some("iris")), Some(1));
        assert_eq!(policy.choose(&all[..2], None), Some(1));
    }
    assert_eq!(GpuPolicy::Off.choose(&all, None), None);
}
