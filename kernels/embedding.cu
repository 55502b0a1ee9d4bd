/* Token embeddings (op.h: ct_embedding_fwd_args, ct_embedding_bwd_args).
 *
 *   forward:   y[t] = word[ids[t]] + position[positions[t]] (+ type[0])
 *   backward:  dword[v] += sum of the dy[t] with ids[t] = v, likewise dposition;
 *              dtype[0] += sum of all dy[t]
 *
 * Shapes: y, dy (T, D); tables (V, D), (P, D), (types, D); T up to half a million, D any.
 *
 * Bytes: forward reads a word row and writes a row a token, the other tables stay in cache;
 * backward reads dy twice (in the order of ids and in that of positions; at usual batches the
 * second time from L2), and reads and writes the named rows of the f32 tables. Bound by memory,
 * small batches by backward's seven or so launches.
 *
 * Plan of forward: one warp a token. Of backward: no floating-point atomics. Tokens are sorted by
 * key (token_sort.cuh); a table's rows are then sums over runs of equal keys. The sorted tokens are
 * cut into pieces of equal length, one block a piece, which adds rows in token order, 8 rows in
 * flight a thread. A run that lies within a piece is added to its row of the table at once; of a
 * run that crosses a piece's bounds, the piece's part goes to a list of partial sums with two
 * places a piece (its first run's, its last run's), and the same kernel sums that list in turn, 16
 * times shorter each time, until one piece is left. So [CLS] or position 0, which every sentence
 * has, make no block work longer than another. dtype's row is the sum of the pieces' totals,
 * through the same levels. The order depends on the keys alone.
 *
 * Limit: an id out of range cannot be reported from here. Its row of y is NaN, so that the loss
 * shows it, and backward leaves it out of its table; no memory outside the tables is touched. */
#include "kernels.h"
#include "token_sort.cuh"
#include "workspace.cuh"

namespace ctk
{

/* ---- forward ------------------------------------------------------------------------------- */

constexpr int forward_warps = 8;

/* One warp a token. type may be NULL. */
template <class T, int W>
__global__ void __launch_bounds__(32 * forward_warps, 4)
    embedding_rows(T *y, const int32_t *ids, const int32_t *positions, const T *word,
                   const T *position, const T *type, int64_t tokens, int64_t width, int64_t words,
                   int64_t places)
{
    const int64_t t = (int64_t)blockIdx.x * forward_warps + threadIdx.x / 32;
    if (t >= tokens) return;
    const int64_t id = ids[t], place = positions[t];
    const bool valid = id >= 0 && id < words && place >= 0 && place < places;
    const T *word_row = word + id * width, *position_row = position + place * width;
#pragma unroll 4
    for (int64_t k = (threadIdx.x % 32) * W; k < width; k += 32 * W) {
        float sum[W], more[W] = {}, still[W] = {};
        if (valid) {
            load<W>(sum, word_row + k);
            load<W>(more, position_row + k);
            if (type) load<W>(still, type + k);
        }
#pragma unroll
        for (int u = 0; u < W; u++) sum[u] = valid ? sum[u] + more[u] + still[u] : nanf("");
        store<W>(y + t * width + k, sum);
    }
}

template <class T, int W>
static cudaError_t launch_forward(const ct_embedding_fwd_args *args, const ctk_launch *l)
{
    const int64_t tokens = args->y.dim[0];
    return launch(embedding_rows<T, W>, dim3((unsigned)ceil_div(tokens, forward_warps)),
                  dim3(32 * forward_warps), 0, l->stream, (T *)args->y.data,
                  (const int32_t *)args->ids.data, (const int32_t *)args->positions.data,
                  (const T *)args->word.data, (const T *)args->position.data,
                  (const T *)args->type.data, tokens, args->y.dim[1], args->word.dim[0],
                  args->position.dim[0]);
}

/* ---- backward: sums over runs of equal keys ---------------------------------------------------
 */

constexpr int run_piece_max = 128, run_unroll = 8, run_threads_max = 256;

/* Rows to be summed by key. Entry i is row source[i] of `rows`, or nothing when that is -1. */
struct run_list {
    const int32_t *key, *source;
    int64_t count;
    const void *rows;
    float *sum;    /* (limit, D) += */
    int32_t limit; /* keys from here on are dropped */
    /* What crosses a piece's bounds: entries 2 p and 2 p + 1 of the next list. */
    int32_t *next_key, *next_source;
    float *next_rows;
    /* Each piece's whole sum: entry p of another list, all of one key. NULL: not wanted. */
    int32_t *total_key, *total_source;
    float *total_rows;
};

struct run_lists {
    run_list list[3]; /* words, positions, types */
};

/* Keys of a piece and of its neighbours, at shared[1 ..]; -1 where there is none. */
__device__ __forceinline__ void load_piece(const run_list &list, int64_t begin, int count,
                                           int32_t *key, int32_t *source)
{
    for (int i = (int)threadIdx.x; i < count + 2; i += (int)blockDim.x) {
        const int64_t at = begin + i - 1;
        key[i] = at >= 0 && at < list.count ? list.key[at] : -1;
        if (i > 0 && i <= count) source[i - 1] = list.source[at];
    }
    __syncthreads();
}

/* The next lists' entries of this piece; key[1 .. count] is the piece. */
__device__ __forceinline__ void name_partials(const run_list &list, int64_t piece, int count,
                                              const int32_t *key)
{
    const int32_t first = key[1], last = key[count];
    const bool head = key[0] == first, tail = key[count + 1] == last && !(head && first == last);
    if (list.next_key) {
        list.next_key[2 * piece] = first;
        list.next_key[2 * piece + 1] = last;
        list.next_source[2 * piece] = head ? (int32_t)(2 * piece) : -1;
        list.next_source[2 * piece + 1] = tail ? (int32_t)(2 * piece + 1) : -1;
    }
    if (list.total_key) {
        list.total_key[piece] = 0;
        list.total_source[piece] = (int32_t)piece;
    }
}

/* to = sum, or to += sum. */
template <int W, bool add> __device__ __forceinline__ void put_sum(float *to, const float (&sum)[W])
{
    float x[W];
    if (add) load<W>(x, to);
#pragma unroll
    for (int u = 0; u < W; u++) x[u] = add ? x[u] + sum[u] : sum[u];
    store<W>(to, x);
}

/* Columns k to k + W - 1 of all of a piece's runs. */
template <class T, int W>
__device__ __forceinline__ void sum_columns(const run_list &list, int64_t piece, int count,
                                            const int32_t *key, const int32_t *source,
                                            int64_t width, int64_t k)
{
    const T *rows = static_cast<const T *>(list.rows) + k;
    float sum[W] = {}, total[W] = {};
    bool head = key[0] == key[1], any = false;
    for (int begin = 0; begin < count; begin += run_unroll) {
        vec<T, W> x[run_unroll];
#pragma unroll
        for (int u = 0; u < run_unroll; u++)
            if (begin + u < count && source[begin + u] >= 0)
                x[u] = *reinterpret_cast<const vec<T, W> *>(rows + source[begin + u] * width);
#pragma unroll
        for (int u = 0; u < run_unroll; u++) {
            const int i = begin + u;
            if (i >= count) break;
            if (source[i] >= 0) {
                any = true;
#pragma unroll
                for (int w = 0; w < W; w++) sum[w] += to_float(x[u].v[w]);
            }
            const int32_t own = key[i + 1];
            const bool more = key[i + 2] == own; /* the run goes on, here or in the next piece */
            if (more && i + 1 < count) continue;
            if (head) put_sum<W, false>(list.next_rows + 2 * piece * width + k, sum);
            else if (more) put_sum<W, false>(list.next_rows + (2 * piece + 1) * width + k, sum);
            else if (any && own < list.limit) put_sum<W, true>(list.sum + own * width + k, sum);
            head = any = false;
#pragma unroll
            for (int w = 0; w < W; w++) {
                total[w] += sum[w];
                sum[w] = 0.0f;
            }
        }
    }
    if (list.total_rows) put_sum<W, false>(list.total_rows + piece * width + k, total);
}

/* blockIdx: piece, list. */
template <class T, int W>
__global__ void __launch_bounds__(run_threads_max, 2)
    sum_runs(run_lists lists, int64_t width, int piece_length)
{
    CTK_SHARED(int32_t, key, run_piece_max + 2);
    CTK_SHARED(int32_t, source, run_piece_max);
    const run_list &list = lists.list[blockIdx.y];
    const int64_t piece = blockIdx.x, begin = piece * piece_length;
    if (begin >= list.count) return;
    const int64_t left = list.count - begin;
    const int count = left < piece_length ? (int)left : piece_length;
    load_piece(list, begin, count, key, source);
    if (threadIdx.x == 0) name_partials(list, piece, count, key);
    for (int64_t k = (int64_t)threadIdx.x * W; k < width; k += (int64_t)blockDim.x * W)
        sum_columns<T, W>(list, piece, count, key, source, width, k);
}

template <class T>
static cudaError_t launch_runs(const run_lists &lists, int count, int64_t width, int piece_length,
                               cudaStream_t stream)
{
    int64_t longest = 0;
    for (int k = 0; k < count; k++)
        longest = lists.list[k].count > longest ? lists.list[k].count : longest;
    const dim3 grid((unsigned)ceil_div(longest, piece_length), (unsigned)count);
    constexpr int W = vec_width<T>;
    const bool vectors = width % W == 0;
    int64_t threads = ceil_div(vectors ? width / W : width, 32) * 32;
    if (threads > run_threads_max) threads = run_threads_max;
    return vectors ? launch(sum_runs<T, W>, grid, dim3((unsigned)threads), 0, stream, lists, width,
                            piece_length)
                   : launch(sum_runs<T, 1>, grid, dim3((unsigned)threads), 0, stream, lists, width,
                            piece_length);
}

/* ---- backward: memory and launches -------------------------------------------------------------
 */

constexpr int later_piece = 32, level_max = 12;

/* Few tokens: short pieces, for many blocks. Many: long ones, for few partial sums in memory. */
static int first_piece(int64_t tokens)
{
    return tokens <= 65536 ? 32 : tokens <= 131072 ? 64 : run_piece_max;
}

/* One level's list of rows: places for keys, sources and, except for the tokens themselves, sums.
 */
struct level_memory {
    int64_t count;
    int32_t *key, *source;
    float *rows;
};

/* Where everything is in the workspace; list 0 words, 1 positions, 2 types. */
struct backward_memory {
    sorted_tokens sorted[2];
    level_memory level[level_max][3];
    int levels;
    size_t bytes;
};

static backward_memory lay_out(const ct_embedding_bwd_args *args, void *workspace)
{
    backward_memory m = {};
    const int64_t tokens = args->dy.dim[0], width = args->dy.dim[1];
    const bool types = ct_tensor_present(&args->dtype);
    for (int k = 0; k < 2; k++) {
        sorted_tokens &s = m.sorted[k];
        s.key = take<int32_t>(workspace, &m.bytes, tokens);
        s.token = take<int32_t>(workspace, &m.bytes, tokens);
        s.other_key = take<int32_t>(workspace, &m.bytes, tokens);
        s.other_token = take<int32_t>(workspace, &m.bytes, tokens);
        s.counts = take<int32_t>(workspace, &m.bytes, sort_tiles(tokens) * sort_digits);
        m.level[0][k] = {tokens, s.key, s.token, nullptr};
    }
    m.levels = 1;
    int64_t pieces = ceil_div(tokens, first_piece(tokens));
    int64_t type_count = types ? pieces : 0;
    while (pieces > 1 || (m.levels == 1 && type_count > 0)) {
        level_memory *level = m.level[m.levels++];
        for (int k = 0; k < 3; k++) {
            level[k].count = k < 2 ? 2 * pieces : type_count;
            level[k].key = take<int32_t>(workspace, &m.bytes, level[k].count);
            level[k].source = take<int32_t>(workspace, &m.bytes, level[k].count);
            level[k].rows = take<float>(workspace, &m.bytes, level[k].count * width);
        }
        pieces = ceil_div(2 * pieces, later_piece);
        type_count = types ? 2 * ceil_div(type_count, later_piece) : 0;
    }
    return m;
}

static run_lists lists_of(const ct_embedding_bwd_args *args, const backward_memory &m, int level)
{
    const ct_tensor *tables[3] = {&args->dword, &args->dposition, &args->dtype};
    run_lists lists = {};
    for (int k = 0; k < 3; k++) {
        const level_memory &own = m.level[level][k];
        run_list &list = lists.list[k];
        list.key = own.key;
        list.source = own.source;
        list.count = own.count;
        list.rows = level == 0 ? args->dy.data : own.rows;
        list.sum = (float *)tables[k]->data;
        list.limit = (int32_t)tables[k]->dim[0];
        if (level + 1 == m.levels) continue;
        const level_memory &next = m.level[level + 1][k];
        list.next_key = next.key;
        list.next_source = next.source;
        list.next_rows = next.rows;
    }
    if (level == 0 && ct_tensor_present(&args->dtype)) {
        const level_memory &types = m.level[1][2];
        lists.list[1].total_key = types.key;
        lists.list[1].total_source = types.source;
        lists.list[1].total_rows = types.rows;
    }
    return lists;
}

template <class T>
static cudaError_t launch_backward(const ct_embedding_bwd_args *args, const ctk_launch *l)
{
    const int64_t tokens = args->dy.dim[0], width = args->dy.dim[1];
    if (tokens == 0) return cudaSuccess;
    const backward_memory m = lay_out(args, l->workspace);
    const int32_t *const keys[2] = {(const int32_t *)args->ids.data,
                                    (const int32_t *)args->positions.data};
    const int64_t limits[2] = {args->dword.dim[0], args->dposition.dim[0]};
    cudaError_t error = sort_tokens(m.sorted, keys, limits, tokens, l->stream);
    if (error != cudaSuccess) return error;
    error = launch_runs<T>(lists_of(args, m, 0), 2, width, first_piece(tokens), l->stream);
    for (int level = 1; level < m.levels && error == cudaSuccess; level++)
        error =
            launch_runs<float>(lists_of(args, m, level), ct_tensor_present(&args->dtype) ? 3 : 2,
                               width, later_piece, l->stream);
    return error;
}

} // namespace ctk

extern "C" cudaError_t ctk_embedding_fwd(const ct_embedding_fwd_args *args, const ctk_launch *l)
{
    return ctk::with_type(args->y.dtype, [&](auto type) {
        using T = decltype(type);
        constexpr int W = ctk::vec_width<T>;
        return args->y.dim[1] % W == 0 ? ctk::launch_forward<T, W>(args, l)
                                       : ctk::launch_forward<T, 1>(args, l);
    });
}

extern "C" size_t ctk_embedding_bwd_workspace(const ct_embedding_bwd_args *args, int sm_count)
{
    (void)sm_count;
    return ctk::lay_out(args, nullptr).bytes;
}

extern "C" cudaError_t ctk_embedding_bwd(const ct_embedding_bwd_args *args, const ctk_launch *l)
{
    const int64_t limit = INT32_MAX; /* keys, tokens and partial sums are numbered in 32 bits */
    if (args->dword.dim[0] >= limit || args->dposition.dim[0] >= limit || args->dy.dim[0] >= limit)
        return cudaErrorInvalidValue;
    return ctk::with_type(args->dy.dtype,
                          [&](auto type) { return ctk::launch_backward<decltype(type)>(args, l); });
}
