//! Which adapter is taken, of those that there are.

use inferq_engine::gpu::{AdapterInfo, AdapterKind, Gpu, GpuPolicy, adapters};

use crate::gpu::gpu;

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
