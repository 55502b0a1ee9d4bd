# What every target of the project is compiled with.
add_library(ct_options INTERFACE)
target_compile_definitions(ct_options INTERFACE _GNU_SOURCE)
target_compile_options(ct_options INTERFACE
    -Wall -Wextra -Wshadow -Wpointer-arith -Wvla
    "$<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes;-Wmissing-prototypes>"
    -Wwrite-strings -Wformat=2 -Wno-format-nonliteral -Wno-unknown-pragmas
    -fno-math-errno -fno-trapping-math -ffp-contract=fast)
if(CT_WERROR)
    target_compile_options(ct_options INTERFACE -Werror)
endif()
if(CT_NATIVE)
    target_compile_options(ct_options INTERFACE -march=native)
endif()
if(CT_SANITIZE)
    target_compile_options(ct_options INTERFACE
        -fsanitize=${CT_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
    target_link_options(ct_options INTERFACE -fsanitize=${CT_SANITIZE})
endif()
target_include_directories(ct_options INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/host)

# ct_module(NAME [DEPENDS ...] [LIBRARIES ...]): static library ct_NAME of the *.c in this folder.
# DEPENDS are other modules (their targets), LIBRARIES come from outside the project.
function(ct_module name)
    cmake_parse_arguments(ARG "" "" "DEPENDS;LIBRARIES" ${ARGN})
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.c)
    if(NOT sources)
        return()
    endif()
    add_library(ct_${name} STATIC ${sources})
    target_link_libraries(ct_${name} PUBLIC ct_options ${ARG_DEPENDS} PRIVATE ${ARG_LIBRARIES})
endfunction()
