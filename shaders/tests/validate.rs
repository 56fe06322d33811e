//! Each shader parses, is valid, translates to SPIR-V and says the same as its entry in the catalogue. No GPU needed.

use std::collections::BTreeSet;
use std::path::Path;

use inferq_shaders::{Binding, Kernel, all_kernels};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Expression, Literal, Module, ShaderStage, StorageAccess};

/// Workgroup memory that every WebGPU device has.
const GUARANTEED_WORKGROUP_BYTES: u32 = 16_384;

fn module(kernel: &Kernel) -> (Module, ModuleInfo) {
    let module = naga::front::wgsl::parse_str(kernel.source)
        .unwrap_or_else(|error| panic!("{}", error.emit_to_string(kernel.source)));
    // Beside immediates only what every driver of Vulkan, Metal and Direct3D 12 can.
    let mut capabilities = Capabilities::IMMEDIATES | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    if kernel.files.contains(&"cooperative") {
        capabilities |= Capabilities::COOPERATIVE_MATRIX
            | Capabilities::SHADER_FLOAT16
            | Capabilities::SUBGROUP;
    }
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .unwrap_or_else(|error| panic!("{}: {:?}", kernel.name, error.into_inner()));
    (module, info)
}

#[test]
fn every_shader_file_is_in_the_catalogue() {
    let files =
        std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("the crate's folder");
    let files: BTreeSet<String> = files
        .filter_map(|entry| {
            entry
                .expect("a folder entry")
                .file_name()
                .into_string()
                .ok()
        })
        .filter_map(|name| name.strip_suffix(".wgsl").map(str::to_owned))
        .collect();
    let kernels: Vec<_> = all_kernels().collect();
    let named = kernels.iter().flat_map(|kernel| kernel.files);
    assert_eq!(files, named.map(|name| (*name).to_owned()).collect());
    let names: BTreeSet<&str> = kernels.iter().map(|kernel| kernel.name).collect();
    assert_eq!(names.len(), kernels.len(), "each has a name of its own");
}

#[test]
fn every_shader_is_valid_and_translates_to_spirv() {
    for kernel in all_kernels() {
        let (module, info) = module(kernel);
        let pipeline = naga::back::spv::PipelineOptions {
            shader_stage: ShaderStage::Compute,
            entry_point: kernel.entry_point.to_owned(),
        };
        let options = naga::back::spv::Options::default();
        let words = naga::back::spv::write_vec(&module, &info, &options, Some(&pipeline))
            .unwrap_or_else(|error| panic!("{}: {error}", kernel.name));
        assert_eq!(
            words[0], 0x0723_0203,
            "{}: SPIR-V begins with its magic number",
            kernel.name
        );
    }
}

#[test]
fn entry_points_and_workgroup_sizes_agree_with_the_catalogue() {
    for kernel in all_kernels() {
        let (module, _) = module(kernel);
        let [entry] = &module.entry_points[..] else {
            panic!(
                "{} has {} entry points",
                kernel.name,
                module.entry_points.len()
            )
        };
        assert_eq!(entry.stage, ShaderStage::Compute);
        assert_eq!(entry.name, kernel.entry_point);
        assert_eq!(
            entry.workgroup_size, kernel.workgroup_size,
            "{}",
            kernel.name
        );
    }
}

#[test]
fn bindings_agree_with_the_catalogue() {
    for kernel in all_kernels() {
        let (module, _) = module(kernel);
        let mut found: Vec<(u32, Binding)> = vec![];
        for (_, variable) in module.global_variables.iter() {
            let Some(place) = &variable.binding else {
                continue;
            };
            let AddressSpace::Storage { access } = variable.space else {
                panic!(
                    "{}: {:?} is bound but no storage buffer",
                    kernel.name, variable.name
                )
            };
            let writes = access.contains(StorageAccess::STORE);
            assert_eq!(place.group, 0, "{}", kernel.name);
            found.push((
                place.binding,
                if writes {
                    Binding::ReadWrite
                } else {
                    Binding::Read
                },
            ));
        }
        found.sort_by_key(|(place, _)| *place);
        let wanted: Vec<(u32, Binding)> = (0..).zip(kernel.bindings.iter().copied()).collect();
        assert_eq!(found, wanted, "{}", kernel.name);
    }
}

#[test]
fn immediates_and_workgroup_memory_agree_with_the_catalogue() {
    for kernel in all_kernels() {
        let (module, _) = module(kernel);
        let bytes = |wanted: fn(&AddressSpace) -> bool| -> u32 {
            let variables = module.global_variables.iter().map(|(_, variable)| variable);
            let sizes = variables
                .filter(|variable| wanted(&variable.space))
                .map(|variable| module.types[variable.ty].inner.size(module.to_ctx()));
            sizes.sum()
        };
        let immediate = bytes(|space| matches!(space, AddressSpace::Immediate));
        assert_eq!(immediate, kernel.immediate_bytes, "{}", kernel.name);
        let workgroup = bytes(|space| matches!(space, AddressSpace::WorkGroup));
        assert_eq!(workgroup, kernel.workgroup_bytes, "{}", kernel.name);
        assert!(workgroup <= GUARANTEED_WORKGROUP_BYTES, "{}", kernel.name);
    }
}

#[test]
fn constants_agree_with_the_catalogue() {
    for kernel in all_kernels() {
        let (module, _) = module(kernel);
        for (name, wanted) in kernel.constants {
            let (_, constant) = module
                .constants
                .iter()
                .find(|(_, constant)| constant.name.as_deref() == Some(name))
                .unwrap_or_else(|| panic!("{} has no constant {name}", kernel.name));
            let value = &module.global_expressions[constant.init];
            assert!(
                matches!(value, Expression::Literal(Literal::U32(found)) if found == wanted),
                "{}: {name} is {value:?} in the shader and {wanted} in the catalogue",
                kernel.name
            );
        }
    }
}
