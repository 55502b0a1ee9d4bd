#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "image/decoder.h"

#include <jerror.h>

#define MAX_PIXELS     178956970 /* Pillow's limit, twice its MAX_IMAGE_PIXELS */
#define MAX_FILE_BYTES (1 << 30)
#define MAX_SCANS      500 /* an honest progressive photo has about ten */
#define ROWS_A_CALL    16

/* ---- libjpeg's callbacks ---- */

static _Noreturn void on_error(j_common_ptr jpeg)
{
    ct_decoder *decoder = jpeg->client_data;
    char text[JMSG_LENGTH_MAX];
    jpeg->err->format_message(jpeg, text);
    ct_status code = jpeg->err->msg_code == JERR_OUT_OF_MEMORY ? CT_ERR_MEMORY : CT_ERR_FORMAT;
    decoder->status = ct_fail(code, "%s: %s", decoder->name, text);
    longjmp(decoder->failed, 1);
}

/* Warnings (level -1) and traces are put up with: the photo can be decoded. */
static void on_message(j_common_ptr jpeg, int level)
{
    if (level < 0) jpeg->err->num_warnings++;
}

/* Every scan passes over the whole photo, so a small file of very many scans would take hours. */
static void on_progress(j_common_ptr jpeg)
{
    ct_decoder *decoder = jpeg->client_data;
    if (decoder->jpeg.input_scan_number <= MAX_SCANS) return;
    decoder->status =
        ct_fail(CT_ERR_FORMAT, "%s: more than %d scans in a JPEG", decoder->name, MAX_SCANS);
    longjmp(decoder->failed, 1);
}

static void source_nothing(j_decompress_ptr jpeg)
{
    (void)jpeg;
}

/* All bytes are in memory from the start, so asking for more is the file's early end. */
static boolean source_ended(j_decompress_ptr jpeg)
{
    ERREXIT(jpeg, JERR_INPUT_EOF);
    return FALSE;
}

static void source_skip(j_decompress_ptr jpeg, long count)
{
    if (count <= 0) return;
    if ((size_t)count > jpeg->src->bytes_in_buffer) ERREXIT(jpeg, JERR_INPUT_EOF);
    jpeg->src->next_input_byte += count;
    jpeg->src->bytes_in_buffer -= (size_t)count;
}

/* ---- the decoder ---- */

ct_status ct_decoder_create(ct_decoder **out)
{
    ct_decoder *decoder;
    CT_TRY(ct_alloc(1, sizeof *decoder, "a JPEG decoder", &decoder));
    decoder->name = "decoder";
    decoder->jpeg.err = jpeg_std_error(&decoder->errors);
    decoder->jpeg.client_data = decoder;
    decoder->errors.error_exit = on_error;
    decoder->errors.emit_message = on_message;
    if (setjmp(decoder->failed)) {
        ct_status status = decoder->status;
        ct_decoder_destroy(decoder);
        return status;
    }
    jpeg_create_decompress(&decoder->jpeg);
    decoder->source = (struct jpeg_source_mgr){
        .init_source = source_nothing,
        .fill_input_buffer = source_ended,
        .skip_input_data = source_skip,
        .resync_to_restart = jpeg_resync_to_restart,
        .term_source = source_nothing,
    };
    decoder->jpeg.src = &decoder->source;
    decoder->progress.progress_monitor = on_progress;
    decoder->jpeg.progress = &decoder->progress;
    *out = decoder;
    return CT_OK;
}

void ct_decoder_destroy(ct_decoder *decoder)
{
    if (!decoder) return;
    jpeg_destroy_decompress(&decoder->jpeg);
    ct_axis_free(&decoder->horizontal);
    ct_axis_free(&decoder->vertical);
    free(decoder->file.data);
    free(decoder->pixels.data);
    free(decoder->cmyk_row.data);
    free(decoder->between.data);
    free(decoder->last_row.data);
    free(decoder);
}

/* ---- reading ---- */

static ct_status read_descriptor(int file, const char *path, ct_bytes *bytes, size_t *size)
{
    struct stat info;
    if (fstat(file, &info) != 0) return ct_fail_errno(CT_ERR_IO, "%s: cannot read", path);
    if (!S_ISREG(info.st_mode)) return ct_fail(CT_ERR_IO, "%s: not a regular file", path);
    if (info.st_size > MAX_FILE_BYTES)
        return ct_fail(CT_ERR_FORMAT, "%s: %lld bytes are too many for a photo (limit %d)", path,
                       (long long)info.st_size, MAX_FILE_BYTES);
    size_t expected = (size_t)info.st_size;
    CT_TRY(ct_grow(&bytes->data, &bytes->capacity, expected, 1, "a photo's file"));
    for (*size = 0; *size < expected;) {
        ssize_t got = read(file, bytes->data + *size, expected - *size);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return ct_fail_errno(CT_ERR_IO, "%s: cannot read", path);
        if (got == 0) break;
        *size += (size_t)got;
    }
    return CT_OK;
}

/* O_NONBLOCK: opening a FIFO must fail, not wait for its writer. */
static ct_status read_file(const char *path, ct_bytes *bytes, size_t *size)
{
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return ct_fail_errno(CT_ERR_IO, "%s: cannot open", path);
    ct_status status = read_descriptor(file, path, bytes, size);
    close(file);
    return status;
}

ct_status ct_decoder_open(ct_decoder *decoder, const char *path, int32_t *width, int32_t *height)
{
    size_t size = 0;
    CT_TRY(read_file(path, &decoder->file, &size));
    return ct_decoder_open_bytes(decoder, decoder->file.data, size, path, width, height);
}

static ct_status check_header(const struct jpeg_decompress_struct *jpeg, const char *name)
{
    int64_t pixels = (int64_t)jpeg->image_width * jpeg->image_height;
    if (pixels > MAX_PIXELS)
        return ct_fail(CT_ERR_FORMAT, "%s: %u x %u pixels are more than the limit of %d", name,
                       jpeg->image_width, jpeg->image_height, MAX_PIXELS);
    if (jpeg->num_components != 1 && jpeg->num_components != 3 && jpeg->num_components != 4)
        return ct_fail(CT_ERR_FORMAT, "%s: a JPEG of %d components; expected 1, 3 or 4", name,
                       jpeg->num_components);
    return CT_OK;
}

ct_status ct_decoder_open_bytes(ct_decoder *decoder, const uint8_t *bytes, size_t size,
                                const char *name, int32_t *width, int32_t *height)
{
    struct jpeg_decompress_struct *jpeg = &decoder->jpeg;
    if (size == 0) return ct_fail(CT_ERR_FORMAT, "%s: empty file", name);
    decoder->name = name;
    decoder->source.next_input_byte = bytes;
    decoder->source.bytes_in_buffer = size;
    jpeg_abort_decompress(jpeg); /* of a photo that was opened only */
    if (setjmp(decoder->failed)) return decoder->status;
    jpeg_read_header(jpeg, TRUE);
    CT_TRY(check_header(jpeg, name));
    *width = (int32_t)jpeg->image_width;
    *height = (int32_t)jpeg->image_height;
    return CT_OK;
}

/* ---- decoding ---- */

/* (a * b) / 255, rounded to nearest, for a and b in 0..255. */
static inline unsigned scale_255(unsigned a, unsigned b)
{
    unsigned product = a * b + 128;
    return (product + (product >> 8)) >> 8;
}

/* Pillow takes every CMYK JPEG for Adobe's kind, which stores 255 - ink, and converts with
 * R = (1 - K) - C (1 - K); in stored values k = 255 - K and c = 255 - C. */
static void cmyk_to_rgb(const uint8_t *restrict in, int32_t width, uint8_t *restrict out)
{
    for (int32_t x = 0; x < width; x++, in += 4, out += 3) {
        unsigned k = in[3];
        for (int c = 0; c < 3; c++) out[c] = (uint8_t)(k - scale_255(255u - in[c], k));
    }
}

/* Next `count` rows of the present output width into `out`. */
static void read_rows(ct_decoder *decoder, uint8_t *out, int32_t count)
{
    struct jpeg_decompress_struct *jpeg = &decoder->jpeg;
    size_t row_bytes = (size_t)jpeg->output_width * 3;
    bool cmyk = jpeg->out_color_space == JCS_CMYK;
    for (int32_t done = 0; done < count;) {
        JSAMPROW rows[ROWS_A_CALL] = {decoder->cmyk_row.data};
        int32_t ask = cmyk ? 1 : count - done < ROWS_A_CALL ? count - done : ROWS_A_CALL;
        for (int32_t i = 0; i < ask && !cmyk; i++) rows[i] = out + (size_t)(done + i) * row_bytes;
        int32_t got = (int32_t)jpeg_read_scanlines(jpeg, rows, (JDIMENSION)ask);
        if (cmyk) cmyk_to_rgb(rows[0], (int32_t)jpeg->output_width, out + (size_t)done * row_bytes);
        done += got;
    }
}

/* Ends the decoding. When rows were left out, of a photo of one scan, the rest of the file still
 * has to hold an end-of-image marker: in image data 0xFF is followed by 0x00 or a restart marker,
 * so the two bytes cannot be anything else. */
static ct_status finish(ct_decoder *decoder)
{
    static const uint8_t end_of_image[] = {0xFF, JPEG_EOI};
    struct jpeg_decompress_struct *jpeg = &decoder->jpeg;
    if (jpeg->output_scanline == jpeg->output_height) {
        jpeg_finish_decompress(jpeg);
        return CT_OK;
    }
    bool ends = jpeg->unread_marker == JPEG_EOI || jpeg_input_complete(jpeg) ||
                memmem(decoder->source.next_input_byte, decoder->source.bytes_in_buffer,
                       end_of_image, sizeof end_of_image);
    if (!ends) ERREXIT(jpeg, JERR_INPUT_EOF);
    jpeg_abort_decompress(jpeg);
    return CT_OK;
}

/* Narrows the output to the columns that the box needs. Chroma upsampling looks one sample beyond
 * a pixel, hence a block's width of margin on both sides. */
static void crop_columns(struct jpeg_decompress_struct *jpeg, ct_box box, JDIMENSION *left)
{
    JDIMENSION margin = (JDIMENSION)(jpeg->max_h_samp_factor * DCTSIZE);
    JDIMENSION box_left = (JDIMENSION)box.left, right = box_left + (JDIMENSION)box.width + margin;
    *left = box_left > margin ? box_left - margin : 0;
    if (right > jpeg->output_width) right = jpeg->output_width;
    JDIMENSION width = right - *left;
    if (width < jpeg->output_width) jpeg_crop_scanline(jpeg, left, &width);
}

ct_status ct_decoder_decode(ct_decoder *decoder, ct_box box, ct_pixels *out, ct_box *inside)
{
    struct jpeg_decompress_struct *jpeg = &decoder->jpeg;
    if (setjmp(decoder->failed)) return decoder->status;
    jpeg->out_color_space = jpeg->num_components == 4 ? JCS_CMYK : JCS_RGB;
    jpeg->dct_method = JDCT_ISLOW;
    jpeg_start_decompress(jpeg);
    JDIMENSION left = 0;
    crop_columns(jpeg, box, &left);
    size_t width = jpeg->output_width, height = (size_t)box.height;
    CT_TRY(ct_grow(&decoder->pixels.data, &decoder->pixels.capacity, width * height * 3, 1,
                   "a photo's pixels"));
    CT_TRY(ct_grow(&decoder->cmyk_row.data, &decoder->cmyk_row.capacity, width * 4, 1,
                   "a row of pixels"));
    if (box.top > 0) jpeg_skip_scanlines(jpeg, (JDIMENSION)box.top);
    read_rows(decoder, decoder->pixels.data, box.height);
    CT_TRY(finish(decoder));
    *out = (ct_pixels){decoder->pixels.data, (int32_t)width, box.height};
    *inside = (ct_box){box.left - (int32_t)left, 0, box.width, box.height};
    return CT_OK;
}

ct_status ct_decoder_parse(ct_decoder *decoder, const uint8_t *bytes, size_t size, const char *name,
                           ct_pixels *out)
{
    ct_box box = {0}, inside;
    CT_TRY(ct_decoder_open_bytes(decoder, bytes, size, name, &box.width, &box.height));
    return ct_decoder_decode(decoder, box, out, &inside);
}

ct_status ct_decoder_read(ct_decoder *decoder, const char *path, ct_pixels *out)
{
    ct_box box = {0}, inside;
    CT_TRY(ct_decoder_open(decoder, path, &box.width, &box.height));
    return ct_decoder_decode(decoder, box, out, &inside);
}
