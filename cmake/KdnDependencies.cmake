# Every library the project stands on, all from Debian's packages.
find_package(Threads REQUIRED)
find_package(absl CONFIG REQUIRED)
find_package(CapnProto CONFIG REQUIRED)
find_package(GTest CONFIG REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(RocksDB CONFIG REQUIRED)
find_package(yaml-cpp CONFIG REQUIRED)
find_package(spdlog CONFIG REQUIRED)
find_package(nlohmann_json CONFIG REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(LIBURING REQUIRED IMPORTED_TARGET liburing)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
find_package(CAF REQUIRED)
find_package(DNNL REQUIRED)

# CUDA is optional; nothing outside */cuda/ and nccl/ may need it.
find_package(CUDAToolkit QUIET)
