/* Photos without captions. */
#include "data/folder.h"
#include "support.h"

static void lists_photos_by_name(void **state)
{
    (void)state;
    static const char *const files[] = {"b.jpg", "a.JPEG", "c.txt", "jpg", ".jpg", "B.jpeg"};
    test_folder folder = make_folder();
    char path[512];
    ct_dataset *dataset;
    assert_int_equal(ct_dataset_open_folder(folder.path, &dataset), CT_ERR_IO);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        write_file(&folder, files[i], "", path);
    assert_ok(ct_dataset_open_folder(folder.path, &dataset));
    assert_contents(dataset, "B.jpeg:; a.JPEG:; b.jpg:");
    assert_string_equal(dataset->images, folder.path);
    assert_int_equal(dataset->photos[0].split, CT_SPLIT_NONE);
    ct_dataset_destroy(dataset);
    remove_folder(&folder);
    assert_int_equal(ct_dataset_open_folder(folder.path, &dataset), CT_ERR_IO);
}

int run_folder_tests(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(lists_photos_by_name)};
    return cmocka_run_group_tests_name("folder", tests, NULL, NULL);
}
