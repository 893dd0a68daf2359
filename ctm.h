/* ctm.h - Consistency Trajectory Models from scratch, in one C99 header - v0.3.0 - public domain or MIT (text at the end)

   This file trains and samples the models of Kim et al., "Consistency Trajectory Models: Learning Probability Flow ODE Trajectory
   of Diffusion" (ICLR 2024). It holds tensors, reverse-mode differentiation, networks, teachers and their ODE solvers, the CTM
   losses, the training step, all samplers, and likelihoods. It needs libc and libm, and it uses OpenMP if the compiler has it switched on.

   In ONE .c file:    #define CTM_IMPLEMENTATION          every other file: just the #include
                      #include "ctm.h"                    build: cc -O2 my.c -lm            (add -fopenmp for threads)

   The implementation takes some seconds to compile, so give it a file of its own. (It includes itself, under the name "ctm.h";
   if your copy has another name, define CTM_SELF, e.g. as "my_ctm.h".)

   What you get: you can stop on any line and print any number; every formula of the paper stands beside the function that computes
   it; the same bits come out for any number of threads; and it is fast (`make bench`). What was given up for that: GPUs, tensor views
   and general broadcasting, and more than one type of real number at a time.

   ---------------------------------------------------------------------------------------------------------------------
   THE IDEA IN FIVE MINUTES

   Take a data point x_0 and add Gaussian noise of standard deviation t, the noise level: x_t = x_0 + t·eps. A diffusion model learns
   the denoiser D(x,t) = E[x_0 | x_t = x], the mean of all data points that x may have come from. The denoiser defines an ODE,
   dx/dt = (x - D(x,t))/t, the probability-flow ODE. Its paths carry noise at t = 80 to data at t = 0, but to follow one takes dozens of
   evaluations of a network. A consistency trajectory model (CTM) learns the SOLUTION of that ODE: one network G that jumps from any
   noise level t to any lower level s on the same path. Its teacher is a finished diffusion model, or an exact formula for D. The
   teacher walks along the path in small steps; the student learns to jump.

        noise                                                                  data
        t = 80 ------------ t ----------- u ------------ s ------------------ 0          time runs down, left to right
                            x_t ~~~~~~~> x_u                                             the teacher walks: a few solver steps
                             \             \____G_ema_> x_target(s) ____G_ema____> x_target
                              \_______________G______> x_est(s)    ____G_ema____> x_est      both must arrive at the same point

        G(x,t,s) = (s/t)·x + (1 - s/t)·g(x,t,s)                                                [eq:G]
        L_CTM    = d( G_ema(G(x_t,t,s), s, 0),  G_ema(G_ema(Solver(x_t,t,u), u, s), s, 0) )    [eq:L_ctm]
        x_next   = G(x, t, sqrt(1-gamma²)·t') + gamma·t'·eps                                   [alg:gamma]

   THE MODEL is the first line. G mixes the point x with the output g of the network, so that G(x,t,t) = x holds for any weights. What must
   g be? It is x minus t times the mean slope of the path between t and s. As s approaches t, the mean slope becomes the slope at t,
   and g becomes the denoiser D(x,t) (chapter 13). So the model still knows the score, the slope of the log-density of noised data,
   which is (D - x)/t² (chapter 11). At s = 0, G is what is called a consistency model: noise to data in one jump. The jumps to other
   levels s are new.

   THE LOSS is the second line. A jump from t to s must agree with this detour: the teacher walks from t to u, and G_ema jumps
   from u to s. Why not let the teacher walk the whole way to s? That costs many solver steps. Why not a tiny step of the teacher? Then
   the target is almost entirely the student's own guess, and errors pile up. The paper draws u anywhere between t and s and calls
   this soft matching: some targets are nearly the teacher's, the others make the jumps agree with one another.
   The two points at s are noisy, and a distance between noisy points says little. So G_ema carries both on to time 0, where d is a
   distance between samples. G_ema is the moving average of the student's weights. It changes slowly, so the student does not chase a
   target that flees; and its weights get no gradient. The gradient runs through its input into G. In the target everything is constant.

   THE DIAGONAL of the square of all t and s is s = t. Near it the factor 1 - s/t nearly vanishes, and L_CTM hardly teaches g anything.
   So denoising score matching (DSM) is added at s = t: the loss L_DSM compares g(x_t,t,t) with x_0 [eq:L_dsm], and the best guess of
   x_0 is D. This is why a training step runs the network on two batches. An adversary may be added, too: a second network that learns
   to tell samples from data. In all, L = L_CTM + lambda_DSM·L_DSM + lambda_GAN·L_GAN, with new noise levels for every row of every
   batch.

   SAMPLING is the third line. From t, jump below the next noise level t', then add fresh noise eps up to it. With gamma = 0 there is
   no noise, and the jumps follow one path of the ODE; with gamma = 1 every jump goes to time 0.

   "Time 0" is sigma_min = 0.002 in all code, as the network is given ln s: pass sigma_min to go all the way.

   All of this but the adversary is ctm_recipe_paper() (chapter 15). A recipe is a function that returns the settings of a training
   run. ctm_recipe_authors() has what differs in the code that the authors published. ctm_recipe_points() and ctm_recipe_images() are
   ours: they depart from the paper where measurements told us to, and say why. The end of the file lists all deviations.

   If you read only six functions: ctm_G_theta (chapter 13), ctm_solve (12), ctm_x_target (16), ctm__ctm_loss (17), ctm_train_step (17),
   and ctm_sample_gamma (18). Three ways through the file: "CTM in an hour" is the opening comments of chapters 11-18 and these six
   functions; "differentiation from nothing" is chapters 5-8; "just use it" is the program below, then the interface.
   examples/00_mini.c has the whole method in 300 lines of plain C, without this header.

   ---------------------------------------------------------------------------------------------------------------------
   A COMPLETE PROGRAM  (tests/test_docs.sh extracts it, builds it and compares what it prints)

   //BEGIN-PROGRAM
   #define CTM_IMPLEMENTATION
   #include "ctm.h"
   #include <stdio.h>

   // Data: two points of the plane, (-0.5, -0.5) and (0.5, 0.5), each blurred with standard deviation 0.05. Sample `index` of training
   // step `step` has the random numbers 4·index .. 4·index+3 to itself (chapter 2 says why the last two are a pair of their own).
   static void draw(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0) {
       double side = ctm_uniform(rng, step, 4*index) < 0.5 ? -0.5 : 0.5;
       (void)user;
       x0[0] = (ctm_real)(side + 0.05 * ctm_normal(rng, step, 4*index + 2));
       x0[1] = (ctm_real)(side + 0.05 * ctm_normal(rng, step, 4*index + 3));
   }

   int main(void) {
       ctm_ctx ctx;
       ctm_arena memory;
       ctm_config cfg = ctm_recipe_paper();
       double mean[4] = {-0.5, -0.5, 0.5, 0.5};
       ctm_real x[4] = {-40, -40, 40, 40};                       // two points of noise, at noise level sigma_max = 80
       ctm_init(&ctx);
       ctm_arena_init(&memory, &ctx, "model");
       cfg.steps = 1000;
       ctm_denoiser *teacher = ctm_mixture(&memory, 2, 2, mean, NULL, 0.05);
       ctm_net *net = ctm_mlp(&memory, &cfg, 2, 1);              // two coordinates; 1: it knows s
       ctm_trainer *tr = ctm_trainer_new(&memory, &cfg, net, teacher, draw, NULL);
       while (tr->step < cfg.steps)
           if (!ctm_train_step(tr)) { fprintf(stderr, "%s\n", ctm_error(&ctx)); return 1; }
       ctm_sample_points(tr->ema[0], x, 2, 1, 0.0, NULL);        // two points, one jump, gamma 0
       for (int i = 0; i < 2; i++) printf("%.1f %.1f\n", (double)x[2*i], (double)x[2*i+1]);
       ctm_trainer_free(tr);
       ctm_arena_free(&memory);
       return 0;
   }
   //END-PROGRAM
   //BEGIN-OUTPUT
   -0.5 -0.5
   0.5 0.5
   //END-OUTPUT

   YOUR OWN DATA. A function like draw() hands it out. For points, shift and scale each column to mean 0 and standard deviation 0.5;
   images in [-1,1] have about that as they are. Then the numbers of the recipes fit. (For data of another standard deviation S, set
   cfg.noise to sigma_data = S, sigma_max = 160·S, sigma_min = 0.004·S. With recipes of ours also multiply huber_c and clip by S/0.5,
   and lambda_dsm where adaptive is 0.)
   A teacher is a formula (ctm_mixture), the rows of a table of up to some thousands (ctm_empirical: a perfect student of it returns those
   very rows), or a network that was trained on them (ctm_recipe_teacher). Without one, pass NULL: then the average teaches the
   student (chapter 16). ctm_recipe_points() aims L_DSM at the teacher's D(x_t,t), which needs a teacher; the paper's aims it at x_0.

   ---------------------------------------------------------------------------------------------------------------------
   CONTENTS  (search "CHAPTER 8"; the same numbers serve interface and implementation)

    1 errors and numbers    2 random numbers    3 memory    4 threads    5 tensors    6 printing and breakpoints    7 the tape
    8 operations    9 networks    10 optimisers and moving averages    11 diffusion    12 the ODE and its solvers    13 the jump
   14 settings    15 recipes    16 losses    17 one training step    18 samplers    19 likelihood    20 editing and guidance
   21 files: weights and checkpoints    22 the engine room: the matrix product and the convolution
   After them: facts that have caused bugs, deviations, references, history, licence.
   (Names with a slash, tests/.., examples/.. and apps/.., are files of the project that this header is the heart of.)

   TO CHANGE...             | begin at
   | the data               | ctm_draw_fn (17); YOUR OWN DATA, above
   | the teacher            | ctm_denoiser (11): denoise(x,t), and exact() if it has a formula
   | the noise levels       | cfg.noise.rho and N; for another formula ctm__grid_level and ctm_index_of_t (11)
   | which (t,u,s)          | cfg.times: a ctm_times_fn of your own (14); ctm_times_paper (15) is one
   | how x_u is made        | cfg.teach: a ctm_teach_fn of your own (14)
   | the distance           | cfg.distance; one of your own: ctm_distance_fn (16), tr->distance
   | a loss                 | ctm__ctm_loss, ctm__dsm_loss (17)
   | the network            | ctm_net_new and its forward (9)
   | an operation           | the head of chapter 8 shows one that is not in this file
   | the sampler            | ctm_sampler (18); one of your own is a loop over G->jump or D->denoise: the head of chapter 18

   NOTATION   | symbol        | in C            | shape  | meaning, unit
              | x_0, x_t      | x0, x_t         | [B,D]  | data; data with noise. Data units, std near sigma_data = 0.5
              | t, u, s       | t, u, s         | [B]    | noise levels (standard deviations), T >= t > u >= s >= sigma_min
              | T, 0          | sigma_max/_min  |        | 80 and 0.002; "time zero" is always sigma_min, as ln s enters
              | θ, φ          | theta, teacher  |        | student; teacher
              | sg(θ)         | ema, or theta   |        | weights that get no gradient: the average, or the student's own (chapter 16)
              | N, i          | N, i            |        | the grid has N noise levels, index 0 is T, index N-1 sigma_min
              | eps           | noise           | [B,D]  | standard normal noise
              | F             | net->forward    | [B,D]  | the network itself, before its scalings
              | g, G, D       | ctm_g_theta, .. | [B,D]  | the scaled output of the network; the jump; a denoiser
              | x_u           | x_u             | [B,D]  | where the teacher takes x_t
              | x_est         | x_est           | [B,D]  | where the student's jump from x_t ends, carried on to time zero
              | x_target      | x_target        | [B,D]  | where a jump from x_u to the same s ends, carried on likewise
              | gamma         | gamma           |        | share of the next level that a sampler adds as fresh noise
              | lambda        | lambda_dsm, ..  |        | weight of a loss
              | B, D, H, L, E | the same        |        | batch, data dimension, hidden width, layers, embedding width
   A few letters serve twice, as in the papers: L is also a loss, E a mean, H and W an image's sides, D with arguments a denoiser.
   EDM is the diffusion model of Karras et al., DDPM++ its U-Net; CD and CT are consistency distillation and training (Song et al.);
   DSM is denoising score matching, LPIPS a perceptual distance of images (16), ELBO the evidence lower bound of a likelihood, EMA the
   moving average of the weights.

   OPERATIONS (chapter 8, a card each: synopsis, shapes, backward, saves, test)
       add  sub  mul  scale  square  linear  silu  film_silu  concat  gather_rows  scatter_rows  mix_rows
       time_features  distance  weighted_mean  relu  softplus  reshape  conv  down  up  group_norm  norm_conv
       attention  dropout  fold  unfold  frequencies  mixture (11)  max_pool  resize  unit_channels

   EQUATIONS  tag -> function (PAPER_NOTES.md has the paper's numbers and the test of each)
       [eq:x_t] ctm__add_noise                  [eq:tweedie] ctm_score                   [eq:pf_ode] ctm__solver_step
       [eq:karras_grid] ctm_t_of_index          [eq:edm] ctm_inner_scalings              [eq:g] ctm_g_theta
       [eq:D_gmm] ctm__gmm_exact                [eq:heun] ctm__solver_step               [eq:G] ctm_G_theta
       [eq:D_from_g] ctm_D_theta                [eq:law_paper] ctm_times_paper           [eq:law_h] ctm__times_by_h
       [eq:law_gap] ctm__times_by_gap           [eq:x_est] ctm_x_est                     [eq:x_target] ctm_x_target
       [eq:L_ctm] ctm__ctm_loss                 [eq:L_dsm] ctm__dsm_loss                 [eq:lambda] ctm_adaptive_weight
       [eq:weights] ctm_weight_uniform          [eq:dsm_law] ctm_level_edm               [eq:film] ctm_mlp
       [eq:unet] ctm_unet                       [eq:radam] ctm_opt_step                  [eq:ema] ctm_ema_step
       [alg:train] ctm_train_step               [alg:gamma] ctm_sample_gamma             [alg:heun] ctm_sample_heun
       [eq:loglik] ctm_loglik                   [eq:flow] ctm_exact_flow
       [eq:cm] ctm_recipe_cd                    [eq:self_teach] ctm_teach_jump            [eq:L_gan] ctm_gan_student_loss
       [eq:L_disc] ctm_gan_disc_loss            [eq:guidance] ctm_guided_jump            [alg:two_step] ctm_sample_two_step
       [alg:churn] ctm_sample_score             [alg:dpm2] ctm_sample_score              [alg:ancestral] ctm_sample_score
       [alg:ddim] ctm_sample_score              [eq:hutchinson] ctm_loglik               [eq:elbo] ctm_elbo
       [eq:bits] ctm_bits_per_dim               [alg:edit] ctm_edit                      [alg:stroke] ctm_stroke
       [eq:guide] ctm_sample_guided             [alg:trajectory] ctm_sample_guided       [alg:reject] ctm_sample_reject
       [eq:lpips] ctm_lpips_distance

   WHAT IS NOT HERE: plotting, image files, command lines, data sets (apps/ has them); GPUs; half precision.

   MEMORY IN ONE SENTENCE: everything lives in an arena you made, until you release or free that arena; nothing is freed singly (except a
   trainer, whose shards have arenas of their own: ctm_trainer_free).

   ERRORS: a mistake in your program (shapes that do not fit) stops at once in CTM_PANIC with names and shapes;
   a fault of the outside world (a file, a number that turned out infinite) returns 0 or NULL and ctm_error(ctx) has one line about it.
   Running out of memory is the world's fault too, but no function has a way to go on: it prints one line and exits with status 1.

   MACROS you may define before the #include (the same in every file, but for CTM_IMPLEMENTATION):
     CTM_IMPLEMENTATION  in exactly one file      CTM_STATIC        all functions static; then each file
                                                                      defines CTM_IMPLEMENTATION, too
     CTM_REAL_DOUBLE     double instead of float  CTM_NO_SIMD       no vector extensions: plain loops only
     CTM_NO_OPENMP       one thread               CTM_NO_STDIO      no files, no printing (but CTM_PANIC's)
     CTM_NO_IMAGES       no operations, networks and distances for images: compiles in half the time. With it, gcc -O2
                         -ffunction-sections -Wl,--gc-sections -s makes a sampler of points of less than 150,000 bytes (x86-64)
     CTM_DEBUG           CTM_PANIC at the first NaN or Inf, after every operation
     CTM_SELF            this file's name, if it is not "ctm.h"
     CTM_LINKED          ignore CTM_IMPLEMENTATION: it is linked from an object file (the Makefile does so, to compile it once)
     CTM_PIECE(loop,work)                         around every piece of work that threads share (chapter 4); default: work
     CTM_MALLOC(ctx,n), CTM_FREE(ctx,p)           your allocator; ctx is the ctm_ctx*, its field `user` is yours
     CTM_PANIC(msg,file,line)                     for mistakes; must not return; default prints and calls abort()
     CTM_NO_MEMORY(msg,file,line)                 must not return either; default: CTM_PANIC if you define that, else it prints one
                                                  line and calls exit(1)

   CTM_PANIC and CTM_NO_MEMORY may leave by longjmp, or by throw where the implementation is compiled as C++, if the context runs on
   one thread (ctx.threads = 1, or CTM_NO_OPENMP), as no jump can leave a thread for another. Whatever was complete before the call that
   was left stays complete: the context, networks, trainers, arenas. What that call was to make is not there; a training step that
   was left can be made again, with the same bits. Forget results on the tape in use and call ctm_tape_init for it. ctm_trainer_free
   and ctm_arena_free give back everything, as ever.
*/

#if defined(__STRICT_ANSI__) && (defined(__cplusplus) ? __cplusplus < 201103L : !defined(__STDC_VERSION__) || __STDC_VERSION__ < 199901L)
#error "ctm.h is C99 and C++11: compile it with -std=c99, -std=c++11 or a later standard"
#ifdef __GNUC__
#  pragma GCC system_header                     /* gcc, which reads // as C89 does, is to be silent about what follows */
#endif
#define CTM_H                                   /* nothing more of it is compiled */
#undef CTM_IMPLEMENTATION
#elif !defined(CTM__PASS) && !defined(__TINYC__)
/* Nothing to read before INTERFACE: these lines keep this file and yours out of each other's way. Here the formulas have their letters,
   and in your file a letter may be a macro: I is one in <complex.h>, and you may have an N. So such macros are put aside, and at the
   end of this file they are again what they were. (Where yours is called N, only your own line "cfg.noise.N" cannot be written.)
   Some warnings are switched off up to there, too: a parameter here may have the name of a variable of yours, numbers are compared that
   were copied, not computed, C++ gets casts as C has them, and clang knows float_control (further down) on some machines only. */
#ifdef __GNUC__
#  pragma GCC diagnostic push
#  pragma GCC diagnostic ignored "-Wshadow"
#  pragma GCC diagnostic ignored "-Wfloat-equal"
#  ifdef __cplusplus
#    pragma GCC diagnostic ignored "-Wold-style-cast"
#  endif
#  ifdef __clang__
#    pragma GCC diagnostic ignored "-Wignored-pragmas"
#  endif
#endif
#ifdef _MSC_VER
#  define CTM__PRAGMA(text) __pragma(text)
#else
#  define CTM__PRAGMA(text) _Pragma(#text)
#endif
#define CTM__ASIDE(name) CTM__PRAGMA(push_macro(name))
#define CTM__BACK(name)  CTM__PRAGMA(pop_macro(name))
#define CTM__NAMES(DO)                                                                                         \
    DO("A") DO("B") DO("C") DO("D") DO("E") DO("F") DO("G") DO("H") DO("I") DO("J") DO("K") DO("L") DO("M")    \
    DO("N") DO("O") DO("P") DO("Q") DO("R") DO("S") DO("T") DO("U") DO("V") DO("W") DO("X") DO("Y") DO("Z")    \
    DO("a") DO("b") DO("c") DO("d") DO("e") DO("f") DO("g") DO("h") DO("i") DO("j") DO("k") DO("l") DO("m")    \
    DO("n") DO("o") DO("p") DO("q") DO("r") DO("s") DO("t") DO("u") DO("v") DO("w") DO("x") DO("y") DO("z")    \
    DO("VI") DO("MR") DO("NV") DO("S2") DO("T2") DO("ROWS") DO("slots")
CTM__NAMES(CTM__ASIDE)
#undef A
#undef B
#undef C
#undef D
#undef E
#undef F
#undef G
#undef H
#undef I
#undef J
#undef K
#undef L
#undef M
#undef N
#undef O
#undef P
#undef Q
#undef R
#undef S
#undef T
#undef U
#undef V
#undef W
#undef X
#undef Y
#undef Z
#undef a
#undef b
#undef c
#undef d
#undef e
#undef f
#undef g
#undef h
#undef i
#undef j
#undef k
#undef l
#undef m
#undef n
#undef o
#undef p
#undef q
#undef r
#undef s
#undef t
#undef u
#undef v
#undef w
#undef x
#undef y
#undef z
#undef VI
#undef MR
#undef NV
#undef S2
#undef T2
#undef ROWS
#undef slots
#endif

#ifdef CTM_LINKED
#  undef CTM_IMPLEMENTATION
#endif

#ifndef CTM_H
#define CTM_H

#include <stddef.h>
#include <stdint.h>
#ifndef CTM_NO_STDIO
#  include <stdio.h>
#endif

#define CTM_VERSION_MAJOR 0
#define CTM_VERSION_MINOR 3
#define CTM_VERSION_PATCH 0
#define CTM_VERSION "0.3.0"

#ifdef CTM_STATIC
#  if defined(__GNUC__)
#    define CTMDEF static __attribute__((__unused__))
#  else
#    define CTMDEF static
#  endif
#else
#  define CTMDEF extern
#endif

#ifdef __cplusplus
extern "C" {
#endif

// =====================================================================================================================
//                                                     I N T E R F A C E
// =====================================================================================================================
// Unless a declaration says otherwise:
// - Shapes stand in brackets: [B,D] is B rows of D numbers, [B] one number a row, [] a scalar; [B,H,W,C] images, channels innermost.
// - t, u, s, sigma are noise levels: standard deviations in the units of x, between sigma_min and sigma_max (those of L_DSM may lie
//   outside). Data have the standard deviation sigma_data in the same units.
// - Results live in the arena that was given, or in the tape's, and go with it. Arguments stay yours. A pointer that is kept (a
//   network, a denoiser, a stream, a `user`) must outlive what keeps it; names and settings are copied.
// - An impossible shape or number is a mistake in your program: CTM_PANIC. An int result is 1 for success, 0 for a failure that has
//   a line in ctm_error, unless the declaration says something else. Samplers (18) and likelihoods (19) also return NULL or 0 for bad
//   settings, as these often come from a command line.
// - [eq:...] and [alg:...] name the formula. The chapter of the same number in the implementation has it, the main ones at its head.

// ---- CHAPTER 1. ERRORS AND NUMBERS ----------------------------------------------------------------------------------

#ifdef CTM_REAL_DOUBLE
typedef double ctm_real;    // the double build exists for tests: finite differences and golden values to 1e-9
#  define CTM__REAL_IS ctm_real_is_double
#else
typedef float ctm_real;     // the one number type of tensors, weights and samples
#  define CTM__REAL_IS ctm_real_is_float
#endif

// Two files that disagree about ctm_real would write past the ends of each other's tensors. So every file refers to a function that
// only an implementation with the same ctm_real has; where the two differ, the linker says that it is missing.
#ifndef CTM_STATIC
CTMDEF void CTM__REAL_IS(void);                          // does nothing
#  if defined(__GNUC__) || defined(__clang__)
__attribute__((__used__))
#  endif
static void (*const ctm__real_is)(void) = CTM__REAL_IS;
#endif

// Instruction sets, slowest first. All compute the same formulas, but sums may round differently from one set to another. With the same
// set (and the same ctx.winograd) the same bits come out for any number of threads, from gcc and clang, in C and C++, with -O0 to -O3,
// -flto and -march=native: this file leaves nothing to the compiler that changes a result. PORTABLE has the same bits on every machine,
// V128 on all machines of one kind (arm64 fuses multiply-adds, others do not have such an instruction). Three things are outside of our
// control: exp, log and pow of the C library, which may differ in the last digit from one library to another; the arithmetic of 32-bit
// x86 without SSE2; and clang's -ffast-math and -ffp-contract=fast, which fuse multiply-adds all the same (gcc's -ffast-math does not).
enum { CTM_ISA_PORTABLE, CTM_ISA_V128, CTM_ISA_AVX2, CTM_ISA_AVX512, CTM_ISA_COUNT };

struct ctm__kernels;

// The context: settings and the last error. One per thread of yours that trains or samples on its own. No globals exist.
typedef struct ctm_ctx {
    char   error[512];                  // last error, one line; empty if none
    int    threads;                     // how many OpenMP threads to use; 0: what OpenMP says (OMP_NUM_THREADS, else all cores). Never
                                        // changes a result
    int    team, most_pieces;           // private (chapter 4): threads for a loop inside another, and the most pieces that one had
    int    isa;                         // CTM_ISA_*, chosen by ctm_init; change with ctm_set_isa
    int    winograd;                    // 3x3 convolutions by Winograd's products: 0 never, 2 wherever height and width are even,
                                        // 1 only from 16 channels and 16 pixels on. They round differently
    const struct ctm__kernels *kernels; // the functions of that instruction set (chapter 22)
    void  *user;                        // for your allocator
    size_t allocated, high;             // bytes held by all arenas of this context: now, and at most so far
} ctm_ctx;

CTMDEF void        ctm_init(ctm_ctx *ctx);               // fills in the fastest instruction set this machine has; all threads
CTMDEF const char *ctm_error(const ctm_ctx *ctx);        // one line about the last failure; valid until the next one
CTMDEF int         ctm_set_isa(ctm_ctx *ctx, int isa);   // 1, or 0 if this machine or build does not have it
CTMDEF const char *ctm_isa_name(int isa);                // "portable", "v128", "avx2", "avx512"; static text

// ---- CHAPTER 2. RANDOM NUMBERS --------------------------------------------------------------------------------------

// A named stream of random numbers. A draw is a pure function of (seed, name, step, index): no state advances, so threads
// cannot disturb it and a resumed run needs to remember nothing but its step.
typedef struct ctm_rng { uint32_t key[2]; } ctm_rng;

CTMDEF ctm_rng ctm_stream(uint64_t seed, const char *name);     // the stream of that name under that seed; the name is not kept
CTMDEF void    ctm_bits(const ctm_rng *rng, uint64_t step, uint64_t block, uint32_t out[4]);   // Philox4x32-10
CTMDEF double  ctm_uniform(const ctm_rng *rng, uint64_t step, uint64_t index);   // in (0,1), from 24 bits
CTMDEF double  ctm_normal(const ctm_rng *rng, uint64_t step, uint64_t index);    // N(0,1) by Box-Muller
CTMDEF void    ctm_normals(const ctm_rng *rng, uint64_t step, uint64_t first, size_t n, ctm_real *out); // index first..first+n-1
// A normal is made of two of a block's four numbers: indices 4k and 4k+1 share their bits, and so do 4k+2 and 4k+3. Uniforms and
// normals of one stream must therefore not share such a pair: uniform(4i) and normal(4i+1) are not independent.

// ---- CHAPTER 3. MEMORY ----------------------------------------------------------------------------------------------

// An arena hands out memory from a list of blocks, in order, and takes it back in reverse order. It grows when full.
typedef struct ctm_arena {
    char     name[32];
    ctm_ctx *ctx;
    struct ctm__block *first, *now;     // all blocks; the one in use
    size_t   used, high;                // bytes in use; the most there ever were
    struct ctm_arena *guest, *next;     // private arenas of functions at work, a list: they go with this one if a jump out of
                                        // CTM_PANIC leaves those functions
} ctm_arena;
typedef struct ctm_mark { struct ctm__block *block; size_t block_used, used; } ctm_mark;

CTMDEF void     ctm_arena_init(ctm_arena *a, ctm_ctx *ctx, const char *name);   // empty: takes nothing from the system yet
CTMDEF void    *ctm_alloc(ctm_arena *a, size_t bytes);         // zeroed, aligned to 64; CTM_NO_MEMORY if the system has no more
CTMDEF void    *ctm_alloc_raw(ctm_arena *a, size_t bytes);     // the same, not zeroed
CTMDEF ctm_mark ctm_arena_mark(ctm_arena *a);                  // where it stands now, to come back to
CTMDEF void     ctm_arena_release(ctm_arena *a, ctm_mark m);   // forgets all that was allocated since the mark
CTMDEF void     ctm_arena_free(ctm_arena *a);                  // gives everything back to the system

// ---- CHAPTER 4. THREADS ---------------------------------------------------------------------------------------------

// Calls work(arg, i) for i = 0..n-1, shared among the threads. Each i must write only what is its own. Inside the
// pieces of another parallel_for that is itself shared among threads, it runs on the calling thread alone. (A training step shares its
// shards in another way: threads that get none help with the loops inside. Before OpenMP 3.1 they are idle.)
// A fork copies one thread. With gcc's OpenMP a child whose parent used several threads waits for the others for ever: fork before
// the first work is shared, or set threads = 1 in the child.
CTMDEF void ctm_parallel_for(ctm_ctx *ctx, int n, void (*work)(void *arg, int i), void *arg);

// ---- CHAPTER 5. TENSORS ---------------------------------------------------------------------------------------------

typedef struct ctm_tensor ctm_tensor;
typedef struct ctm_tape   ctm_tape;

struct ctm_tensor {
    char        name[48];      // "x_est", or the operation's name if nobody gave one
    const char *op;            // "linear", "mul", or "leaf"
    int         id;            // results are numbered as they are computed, recorded or not, from 1, the same in every run; leaves have 0
    int         ndim, shape[4];// [B,H,W,C], [B,D], [B], or [] for a scalar (ndim 0); row-major, contiguous, always
    size_t      len;           // product of the shape
    ctm_real   *data;
    ctm_real   *grad;          // dL/d(this), same layout. A leaf whose grad is NULL gets none: it is a constant
    int         wants;         // a recorded result: a gradient will reach it (its buffer may come and go, see keep_grads)
    ctm_tensor *src[8];        // what it was computed from
    void      (*backward)(ctm_tape *tp, ctm_tensor *out);   // adds out's contribution to src[i]->grad
    ctm_real   *saved;         // what the forward pass keeps for the backward pass
    const int  *index;         // row numbers (gather, scatter)
    int         iarg[2];       // small constants of the operation
    double      arg[2];
    ctm_tensor *prev, *next;   // its neighbours on the tape
};

// Leaves: named tensors in the tape's arena, zeroed (the scalar: value), without a gradient. They live until the tape is reset or released.
CTMDEF ctm_tensor *ctm_scalar(ctm_tape *tp, const char *name, double value);
CTMDEF ctm_tensor *ctm_vector(ctm_tape *tp, const char *name, int n);                  // [n]
CTMDEF ctm_tensor *ctm_matrix(ctm_tape *tp, const char *name, int rows, int cols);     // [rows,cols]
CTMDEF ctm_tensor *ctm_image(ctm_tape *tp, const char *name, int B, int H, int W, int C);  // [B,H,W,C]: channels innermost
CTMDEF ctm_tensor *ctm_fill(ctm_tensor *x, double value);                              // sets all entries; returns x
// Gives a leaf a zeroed gradient, and returns it. To be called before the first operation that reads the leaf.
CTMDEF ctm_tensor *ctm_wants_grad(ctm_tape *tp, ctm_tensor *leaf);
CTMDEF ctm_tensor *ctm_rows_of(ctm_tape *tp, ctm_tensor *x, int n);                    // first n rows, sharing x's data; no grad

// ---- CHAPTER 6. PRINTING AND BREAKPOINTS ----------------------------------------------------------------------------

CTMDEF ctm_tensor *ctm_name(ctm_tensor *x, const char *name);    // names a result; returns x.  gdb: break ctm_name if ...
CTMDEF void ctm_shape_text(const ctm_tensor *x, char *text, size_t size);              // "[256,2]"
CTMDEF int  ctm_first_nonfinite(const ctm_tensor *x, size_t *where);                   // 1 and its index if x has NaN or Inf
CTMDEF int  ctm_is_finite(double v);                                                   // by its bits: right under -ffast-math
#ifndef CTM_NO_STDIO
CTMDEF void ctm_print(const ctm_tensor *x);                      // name, shape, range, first values, gradient
CTMDEF void ctm_tape_dump(const ctm_tape *tp);                   // one line for every recorded operation
#endif
// Places for breakpoints: two empty functions. `break ctm_on_record if t->id == 12` stops when that result has just been
// computed; `break ctm_on_backward if $_streq(t->name,"x_est")` when its gradient is complete.
CTMDEF void ctm_on_record(ctm_tensor *t);
CTMDEF void ctm_on_backward(ctm_tensor *t);

// ---- CHAPTER 7. THE TAPE: AUTOMATIC DIFFERENTIATION -----------------------------------------------------------------

// What a network must know of the rows of a batch beside x, t and s. It travels on the tape, so that no formula has to carry it, and
// ctm_pick_rows makes it go along where only some of the rows are computed.
typedef struct ctm_rows {
    const int     *label;      // [B]: the class of every row, -1: none. NULL: no row has one. Networks without classes pass over it
    const ctm_rng *dropout;    // the stream that dropout draws from; NULL: no dropout
    uint64_t       step;       // the training step of those draws
    uint64_t       first;      // the number that row 0 has in the whole batch
    const int     *number;     // [B]: row i has the number first + number[i]; NULL: first + i
} ctm_rows;

struct ctm_tape {
    ctm_ctx     *ctx;
    ctm_arena   *arena;        // where results, gradients and saved values are allocated
    ctm_tensor  *first, *last; // recorded results in the order of execution, which is a topological order
    int          count;
    int          next_id;
    int          recording;    // 0: compute only ("no grad")
    int          keep_grads;   // 1: every result keeps its gradient, to be looked at. 0: buffers are recycled as backward walks
    struct ctm__buffer *pool;  // gradient buffers that are free again
    ctm_rows     rows;         // of the batch at hand; yours to set (labels) before you sample
    int          drops;        // number of the next dropout; every jump begins at a multiple of 128
    ctm_mark     start;        // where the arena stood when the tape was made
};

// Recording on, gradients kept. A reset gives back everything that the arena handed out since this call.
CTMDEF void ctm_tape_init(ctm_tape *tp, ctm_ctx *ctx, ctm_arena *arena);
CTMDEF void ctm_tape_reset(ctm_tape *tp);                  // forget all nodes and give back their memory
// Reverse mode: adds 1 to dL/dL for the scalar L and walks the tape backwards. Gradients ADD to what is there, also those of
// results while keep_grads is 1: call ctm_tape_zero_grads before a second walk over the same tape.
CTMDEF void ctm_backward(ctm_tape *tp, ctm_tensor *L);
CTMDEF void ctm_backward_seeded(ctm_tape *tp, ctm_tensor *y);   // the same, with ctm_grad(tp, y) filled in by you (any shape)
CTMDEF ctm_real *ctm_grad(ctm_tape *tp, ctm_tensor *x);    // x's gradient, zeroed if it had none yet; NULL if none is wanted
CTMDEF void ctm_tape_zero_grads(ctm_tape *tp);             // zero the gradients of all recorded results (not of the leaves)
// From here on row i is what row index[i] was, i < n. Returns what to put back into tp->rows when all rows are meant again.
CTMDEF ctm_rows ctm_pick_rows(ctm_tape *tp, const int *index, int n);
// For an operation of your own (chapter 8 of the implementation begins with one): the result of operation `op`, its data not yet
// filled in, of n <= 8 inputs src[0..n-1], each of which may be NULL. It goes on the tape if the tape records and an input wants a
// gradient; `backward` then adds out's part to them. op is static text; the pointers in src are kept, the array is not.
CTMDEF ctm_tensor *ctm_result(ctm_tape *tp, const char *op, int ndim, const int *shape, int n, ctm_tensor *const *src,
                              void (*backward)(ctm_tape *tp, ctm_tensor *out));
CTMDEF ctm_tensor *ctm_done(ctm_tensor *out);              // its last line, when out->data is filled in; returns out
// Is a backward pass right? Makes the scalar L = build(user, own, x) of the leaf x (ctm_wants_grad first) on a tape of its own in
// tp's arena, walks back, leaves dL/dx in x->grad, and compares it with central differences of step h. Returns the largest difference
// over the largest slope: some 1e-9 in double with h = 1e-5, 1e-3 in float with h = 1e-2. 1 if all slopes are zero: then nothing was
// checked. 1e30 if one is not finite. build must give the same L each time. With ctm_mul, for example: build returns
// ctm_weighted_mean(own, ctm_reshape(own, ctm_mul(own, x, x), 1, n, 0, 0, 0), NULL, 1) for an x of n numbers.
CTMDEF double ctm_gradcheck(ctm_tape *tp, ctm_tensor *(*build)(void *user, ctm_tape *own, ctm_tensor *x), void *user,
                            ctm_tensor *x, double h);

// ---- CHAPTER 8. OPERATIONS ------------------------------------------------------------------------------------------
// All results belong to the tape's arena until ctm_tape_reset. Shapes that do not fit stop in CTM_PANIC. An operation of your own is
// made with ctm_result, as the head of chapter 8 of the implementation shows.

CTMDEF ctm_tensor *ctm_add(ctm_tape *tp, ctm_tensor *a, ctm_tensor *b);                  // a + b, same shapes
CTMDEF ctm_tensor *ctm_sub(ctm_tape *tp, ctm_tensor *a, ctm_tensor *b);                  // a - b
CTMDEF ctm_tensor *ctm_mul(ctm_tape *tp, ctm_tensor *a, ctm_tensor *b);                  // a·b, entry by entry
CTMDEF ctm_tensor *ctm_scale(ctm_tape *tp, ctm_tensor *a, double c);                     // c·a
CTMDEF ctm_tensor *ctm_square(ctm_tape *tp, ctm_tensor *a);                              // a²
CTMDEF ctm_tensor *ctm_linear(ctm_tape *tp, ctm_tensor *x, ctm_tensor *w, ctm_tensor *b);// x[B,I]·w[I,O] + b[O]; b may be NULL
CTMDEF ctm_tensor *ctm_silu(ctm_tape *tp, ctm_tensor *x);                                // x·sigmoid(x)
// silu((1 + scale)·h + shift), h [B,H]; scale and shift are columns [at, at+H) and [at+H, at+2H) of film [U,F]; row n of h
// takes row row[n] of film (row is not copied; NULL: row n, U = B).
CTMDEF ctm_tensor *ctm_film_silu(ctm_tape *tp, ctm_tensor *h, ctm_tensor *film, int at, const int *row);
CTMDEF ctm_tensor *ctm_concat(ctm_tape *tp, ctm_tensor *a, ctm_tensor *b);               // [..,P],[..,Q] -> [..,P+Q]
// x's numbers, shared, under a shape d0..d(ndim-1) of equal length; the other d are ignored.
CTMDEF ctm_tensor *ctm_reshape(ctm_tape *tp, ctm_tensor *x, int ndim, int d0, int d1, int d2, int d3);
CTMDEF ctm_tensor *ctm_gather_rows(ctm_tape *tp, ctm_tensor *x, const int *index, int n);// out[i] = x[index[i]]; index is not copied
CTMDEF ctm_tensor *ctm_scatter_rows(ctm_tape *tp, ctm_tensor *x, ctm_tensor *y, const int *index); // x with rows index[i] replaced by y[i]
// a[i]·x[i] + b[i]·y[i] for every row i: a, b [B] are constants, x, y [B,D]; b and y may be NULL.
CTMDEF ctm_tensor *ctm_mix_rows(ctm_tape *tp, ctm_tensor *a, ctm_tensor *x, ctm_tensor *b, ctm_tensor *y);
// Features of a noise level t [B]: with z = ln(t)/4, the columns (z if keep_z), sin(f_k z), cos(f_k z), f_k = f_0·2^k, k < n.
CTMDEF ctm_tensor *ctm_time_features(ctm_tape *tp, ctm_tensor *t, int n, double f_0, int keep_z);
enum { CTM_L2, CTM_L1, CTM_HUBER };
// d(a,b) for every row, [B,D] -> [B]. L2: mean of squares; L1: mean of |.|; HUBER: sqrt(sum of squares + c²) - c.
CTMDEF ctm_tensor *ctm_distance(ctm_tape *tp, ctm_tensor *a, ctm_tensor *b, int kind, double c);
CTMDEF ctm_tensor *ctm_weighted_mean(ctm_tape *tp, ctm_tensor *d, ctm_tensor *w, double n); // sum_i w[i]·d[i]/n, not /sum w; w NULL: all 1
CTMDEF ctm_tensor *ctm_relu(ctm_tape *tp, ctm_tensor *x);                                // max(x, 0), any shape
CTMDEF ctm_tensor *ctm_softplus(ctm_tape *tp, ctm_tensor *x);                            // ln(1 + exp(x)), any shape
#ifndef CTM_NO_IMAGES
// For images [B,H,W,C]. alpha·(x * w + b[o] + shift[n,o] + res): x [B,H,W,I], w [k,k,I,O] with k = 1 or 3, stride 1, zeros
// outside; b [O], shift [B,O] and res [B,H,W,O] may be NULL.
CTMDEF ctm_tensor *ctm_conv(ctm_tape *tp, ctm_tensor *x, ctm_tensor *w, ctm_tensor *b, ctm_tensor *shift, ctm_tensor *res, double alpha);
CTMDEF ctm_tensor *ctm_down(ctm_tape *tp, ctm_tensor *x);       // means of 2x2 pixels: [B,H,W,C] -> [B,H/2,W/2,C]; H and W even
CTMDEF ctm_tensor *ctm_up(ctm_tape *tp, ctm_tensor *x);         // every pixel becomes 2x2: [B,H,W,C] -> [B,2H,2W,C]
CTMDEF ctm_tensor *ctm_fold(ctm_tape *tp, ctm_tensor *x, int p);    // p x p pixels become one: [B,H,W,C] -> [B,H/p,W/p,p·p·C]
CTMDEF ctm_tensor *ctm_unfold(ctm_tape *tp, ctm_tensor *x, int p);  // the way back: [B,H,W,p·p·C] -> [B,pH,pW,C]
// Normalises each sample's groups of C/groups channels over all pixels, then ·gamma[c] + beta[c], then SiLU if silu is 1. eps is
// added to the variance; groups must divide C.
CTMDEF ctm_tensor *ctm_group_norm(ctm_tape *tp, ctm_tensor *x, ctm_tensor *gamma, ctm_tensor *beta, int groups, double eps, int silu);
// ctm_conv of silu(ctm_group_norm(x)), keeping only the result: half the memory of the two.
CTMDEF ctm_tensor *ctm_norm_conv(ctm_tape *tp, ctm_tensor *x, ctm_tensor *gamma, ctm_tensor *beta, int groups, double eps,
                                 ctm_tensor *w, ctm_tensor *b, ctm_tensor *shift, ctm_tensor *res, double alpha);
// Softmax attention over the pixels of each sample: [B,H,W,3C] -> [B,H,W,C]; channel 3·(h·C/heads + i) + j of qkv is channel i of
// head h's query, key, value for j = 0, 1, 2.
CTMDEF ctm_tensor *ctm_attention(ctm_tape *tp, ctm_tensor *qkv, int heads);
#endif
// Zero with probability p, else x/(1-p). Draws from the stream tp->rows.dropout; if there is none, x itself. Any shape [B,..].
CTMDEF ctm_tensor *ctm_dropout(ctm_tape *tp, ctm_tensor *x, double p);
#ifndef CTM_NO_IMAGES
// The U-Net's features of a noise level t [B]: with z = ln(t)/4, sin(z·f_i) and cos(z·f_i), f_i = 10000^(-i/(n/2-1)). -> [B,n];
// n even, at least 4.
CTMDEF ctm_tensor *ctm_frequencies(ctm_tape *tp, ctm_tensor *t, int n);
CTMDEF ctm_tensor *ctm_max_pool(ctm_tape *tp, ctm_tensor *x);   // the largest of 2x2 pixels: [B,H,W,C] -> [B,H/2,W/2,C]
CTMDEF ctm_tensor *ctm_resize(ctm_tape *tp, ctm_tensor *x, int H, int W);  // bilinear, pixels as areas (PyTorch's align_corners=False)
// Every pixel's vector of channels divided by its length: c[k]·x[k]/(|x| + eps), [B,H,W,C]. c [C] are constants; NULL: all 1.
CTMDEF ctm_tensor *ctm_unit_channels(ctm_tape *tp, ctm_tensor *x, ctm_tensor *c, double eps);
#endif

// ---- CHAPTER 9. NETWORKS --------------------------------------------------------------------------------------------

// Noise levels and preconditioning, shared by networks, solvers and samplers (chapter 11 explains each).
enum { CTM_INNER_EDM, CTM_INNER_CM, CTM_INNER_NONE };
typedef struct ctm_noise {
    double sigma_min, sigma_max;   // "time zero" and T: 0.002 and 80
    double sigma_data;             // the data's standard deviation per coordinate, 0.5 after standardising
    double rho;                    // curvature of the grid [eq:karras_grid], 7; 1e5 makes it even in ln t
    int    N;                      // levels of the grid, 18
    int    inner;                  // scalings between F and g: CTM_INNER_EDM, CTM_INNER_CM (a consistency model's), CTM_INNER_NONE
} ctm_noise;

enum { CTM_MAX_PARAMS = 2560 };      // room for a U-Net of 128 blocks
typedef struct ctm_net ctm_net;
struct ctm_net {
    char        kind[16];          // "mlp", "unet", "mlp-disc", "conv-disc", "vgg16", or yours
    ctm_ctx    *ctx;
    ctm_arena  *arena;             // where it lives
    int         dim;               // D, the data's dimension (input and output)
    int         with_s;            // 1: a CTM, takes t and s. 0: a teacher or plain denoiser, takes t only
    ctm_noise   noise;
    // F(c_in·x, t, s): x [B,D] is already scaled by c_in; t, s [B] are noise levels (s is NULL if !with_s); returns [B,D].
    ctm_tensor *(*forward)(ctm_tape *tp, ctm_net *net, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s);
    int         count;             // parameters: tensors whose data are pieces of theta, whose grads pieces of grad
    ctm_tensor *param[CTM_MAX_PARAMS];
    int         last_weight;       // place in param of the layer whose gradient balances the losses (chapter 16): the last matrix or
                                   // window that was added; set it if your output layer is another
    size_t      len;               // numbers in theta
    ctm_real   *theta, *grad;      // all parameters, all gradients (NULL: frozen)
    int         iconf[8];          // the network's own settings (mlp: hidden, layers, embed)
    int         size, channels;    // images: dim = size·size·channels, pixels row by row, channels innermost. Points: 0
    int         classes;           // 0: the network takes no labels
    void       *plan;              // what forward needs to know beyond that; shared by copies
};

// The MLP for points with FiLM from the embeddings of t and s [eq:film]. Sizes from cfg. Weights drawn from cfg->seed. With
// cfg->classes > 0 it embeds the rows' labels too (tp->rows); one that is neither -1 nor below classes panics in the forward pass.
struct ctm_config;
CTMDEF ctm_net *ctm_mlp(ctm_arena *a, const struct ctm_config *cfg, int dim, int with_s);
#ifndef CTM_NO_IMAGES
// The U-Net for images (DDPM++), with the authors' parameter names; rows are images, pixel by pixel, channels innermost [eq:unet].
// The configuration must fit (halvable sizes, attention at sizes that exist, channels that GroupNorm can cut): a panic if not.
// Reads noise, seed and the fields from size to classes. The deepest level has attention even if attn is empty.
CTMDEF ctm_net *ctm_unet(ctm_arena *a, const struct ctm_config *cfg, int with_s);
CTMDEF int      ctm_unet_fits(ctm_ctx *ctx, const struct ctm_config *cfg);   // 1; or 0 with ctm_error: for configurations from outside
#endif
// A discriminator of points: x [B,dim] in data units -> one logit a row, [B,1]; forward ignores t and s (both may be NULL).
// cfg->gan_layers SiLU layers of width cfg->gan_hidden. Any network with logits [B,K] will do in its place.
CTMDEF ctm_net *ctm_mlp_discriminator(ctm_arena *a, const struct ctm_config *cfg, int dim);
#ifndef CTM_NO_IMAGES
// A discriminator of images of cfg->size and cfg->channels: one logit for each patch, [B,K]. gan_layers convolutions, each followed
// by a halving where the size allows it, of widths gan_hidden, then twice that. Every image is first moved, mirrored and recoloured
// at random, in a way that is fixed by the tape's step and the row's number: real and fake rows of a step are treated alike.
CTMDEF ctm_net *ctm_conv_discriminator(ctm_arena *a, const struct ctm_config *cfg);
#endif
// Your own network: ctm_net_new, ctm_param for every parameter in order, ctm_net_ready, then set forward.
CTMDEF ctm_net *ctm_net_new(ctm_arena *a, const char *kind, const ctm_noise *noise, int dim, int with_s);
CTMDEF int      ctm_param(ctm_arena *a, ctm_net *net, const char *name, int rows, int cols); // -> its number. cols 0: a vector
CTMDEF int      ctm_param_conv(ctm_arena *a, ctm_net *net, const char *name, int k, int in, int out);  // a window [k,k,in,out]
CTMDEF void     ctm_net_ready(ctm_arena *a, ctm_net *net);                // allocates theta (zeros) and grad
CTMDEF void     ctm_net_init(ctm_net *net, uint64_t seed, double last_gain); // weights uniform(±sqrt(6/(fan_in+fan_out))), biases 0;
                                                                           // the output layer's times last_gain
CTMDEF ctm_net *ctm_net_clone(ctm_arena *a, const ctm_net *net);          // own theta (a copy), no gradient: an EMA
CTMDEF ctm_net *ctm_net_view(ctm_arena *a, const ctm_net *net, int with_grad); // same theta, own gradient or none
CTMDEF int      ctm_net_copy_matching(ctm_net *to, const ctm_net *from);  // copies parameters with equal name and shape; how many
CTMDEF ctm_tensor *ctm_param_named(const ctm_net *net, const char *name); // NULL if there is none

// ---- CHAPTER 10. OPTIMISERS AND MOVING AVERAGES ---------------------------------------------------------------------

enum { CTM_ADAM, CTM_RADAM };          // Kingma and Ba 2015; Liu et al. 2020
// One optimiser's state: for one array theta of len numbers.
typedef struct ctm_opt {
    int      kind;                     // CTM_ADAM, CTM_RADAM
    double   lr, beta1, beta2, eps;    // 4e-4, 0.9, 0.999, 1e-8 are the authors' (RAdam)
    long     k;                        // updates made
    size_t   len;
    ctm_real *m, *v;                   // running means of the gradient and its square
} ctm_opt;
CTMDEF void ctm_opt_init(ctm_arena *a, ctm_opt *o, int kind, size_t len, double lr);   // k = 0, m = v = 0, the authors' betas and eps
// Moves theta [len] against grad [len] and counts the update.  [eq:radam]
CTMDEF void ctm_opt_step(ctm_ctx *ctx, ctm_opt *o, ctm_real *theta, const ctm_real *grad);
// ema <- rate·ema + (1 - rate)·theta, both [len].  [eq:ema]
CTMDEF void ctm_ema_step(ctm_ctx *ctx, size_t len, ctm_real *ema, const ctm_real *theta, double rate);

// ---- CHAPTER 11. DIFFUSION: NOISE, DENOISER, SCORE ------------------------------------------------------------------

CTMDEF ctm_noise ctm_noise_default(void);                              // 0.002, 80, 0.5, 7, 18, CTM_INNER_EDM
CTMDEF double ctm_t_of_index(const ctm_noise *z, double i);            // [eq:karras_grid], i real in [0,N-1]
CTMDEF double ctm_index_of_t(const ctm_noise *z, double t);            // its inverse
CTMDEF void   ctm_karras_times(const ctm_noise *z, int n, double *t);  // n levels from sigma_max to sigma_min
CTMDEF double ctm_c_in(const ctm_noise *z, double t);                                                    // [eq:edm]
CTMDEF void   ctm_inner_scalings(const ctm_noise *z, double t, double *c_skip, double *c_out);           // [eq:edm]
// A denoiser D(x,t) ~ E[x_0 | x_t = x]: a teacher, an exact formula, or a CTM at s = t.
typedef struct ctm_denoiser ctm_denoiser;
struct ctm_denoiser {
    const char *name;
    int   dim;
    void *impl;
    const ctm_noise *noise;        // the levels it was trained on; NULL: it knows every level
    int   no_score;                // 1: its answer is the end of a path, not a mean (a consistency model without s)
    // x [B,D], t [B] -> [B,D] in the tape's arena. Recorded if the tape records and x or the weights want gradients.
    ctm_tensor *(*denoise)(ctm_tape *tp, const ctm_denoiser *self, ctm_tensor *x, ctm_tensor *t);
    // One point in double precision; NULL if there is no exact formula.
    void   (*exact)(const ctm_denoiser *self, const double *x, double t, double *D);
    double (*log_density)(const ctm_denoiser *self, const double *x, double t);   // log p_t(x); may be NULL
};
// Exact: data = mixture of K Gaussians N(mean_k, c²·I), mean [K,dim], weight [K] or NULL for equal; numbers are copied. [eq:D_gmm]
CTMDEF ctm_denoiser *ctm_mixture(ctm_arena *a, int dim, int K, const double *mean, const double *weight, double c);
// Exact: data = n rows, each equally likely (a mixture with c = 0). Its flow ends on the rows themselves.
CTMDEF ctm_denoiser *ctm_empirical(ctm_arena *a, int dim, int n, const double *rows);
// A network: a teacher (no s), or a CTM read at s = t. The network must outlive it.
CTMDEF ctm_denoiser *ctm_net_denoiser(ctm_arena *a, ctm_net *net);
CTMDEF ctm_tensor   *ctm_score(ctm_tape *tp, const ctm_denoiser *D, ctm_tensor *x, ctm_tensor *t);       // [B,D]  [eq:tweedie]

// ---- CHAPTER 12. THE ODE AND ITS SOLVERS ----------------------------------------------------------------------------

// How to follow the ODE. Teacher (ctm_solve): CTM_HEUN, CTM_EULER. Samplers on a score (chapter 18): those and CTM_DPM2, CTM_ANCESTRAL,
// CTM_DDIM. Likelihood (chapter 19): CTM_HEUN, CTM_RK4, and CTM_ADAPTIVE, steps by tolerance, each point its own.
enum { CTM_HEUN, CTM_EULER, CTM_RK4, CTM_DPM2, CTM_ANCESTRAL, CTM_DDIM, CTM_ADAPTIVE };
// Solver(x, t -> u): row i goes from grid index from[i] to to[i] >= from[i] (real numbers) in equal steps of the index, at
// least `substeps` of them for each grid interval. CTM_HEUN or CTM_EULER. Not recorded. Returns [B,D].  [eq:heun]
CTMDEF ctm_tensor *ctm_solve(ctm_tape *tp, const ctm_denoiser *D, const ctm_noise *z, int method, ctm_tensor *x,
                             const double *from, const double *to, int substeps);
// The exact flow: n points x [n,dim] in double from noise level t through the k decreasing levels s[0..k-1]; out [k,n,dim]. t >= s[0]
// >= s[1] .. > 0. Adaptive Dormand-Prince 5(4) in ln t, the error of a step below tol·(0.1 + |x|) (tol 1e-8 is plenty). D must have
// `exact` and at most 64 dimensions.  [eq:flow]
CTMDEF void ctm_exact_flow(ctm_ctx *ctx, const ctm_denoiser *D, size_t n, const double *x, double t, int k, const double *s,
                           double tol, double *out);

// ---- CHAPTER 13. THE JUMP -------------------------------------------------------------------------------------------

// x [B,D], t, s [B], s <= t -> [B,D]. Recorded if the tape records: gradients reach x and the weights. Where s = t in every row, G is
// x itself, the same tensor.
CTMDEF ctm_tensor *ctm_g_theta(ctm_tape *tp, ctm_net *net, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s);  // [eq:g]
CTMDEF ctm_tensor *ctm_G_theta(ctm_tape *tp, ctm_net *net, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s);  // [eq:G]
CTMDEF ctm_tensor *ctm_D_theta(ctm_tape *tp, ctm_net *net, ctm_tensor *x, ctm_tensor *t);                 // [eq:D_from_g]

// A jump G(x,t,s): a CTM, or the exact flow of a denoiser that has one.
typedef struct ctm_jump ctm_jump;
struct ctm_jump {
    const char *name;
    int         dim;
    ctm_noise   noise;
    void       *impl;
    ctm_tensor *(*jump)(ctm_tape *tp, const ctm_jump *self, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s);
};
CTMDEF ctm_jump *ctm_net_jump(ctm_arena *a, ctm_net *net);                                 // the network, read as G
// The exact flow, in double; D needs `exact` and a dimension of at most 64. Rows may differ in t and s. Not recorded.
CTMDEF ctm_jump *ctm_flow_jump(ctm_arena *a, const ctm_denoiser *D, const ctm_noise *z);

// ---- CHAPTER 14. SETTINGS -------------------------------------------------------------------------------------------

typedef struct ctm_config  ctm_config;
typedef struct ctm_trainer ctm_trainer;

// The rows of L_CTM that one thread works on, as far as they are known before x_u is: noise levels t, u, s and weights w [B], data x0 and
// noised data x_t [B,D], and the grid indices of t and u [B]. Their labels and their numbers in the whole batch are in tp->rows.
typedef struct ctm_batch { ctm_tensor *t, *u, *s, *w, *x0, *x_t; double *i_t, *i_u; } ctm_batch;

// A choice that is a formula is a function. Each of these may be one of yours. Several threads call it at once, and its result must
// depend on its arguments alone; random numbers come from a stream of your own, ctm_stream(cfg->seed, "my times"), by step and index. If
// the result cannot be used, the training step panics with the function's name and the row.
// Grid indices of row `index` in step `step`: i[0] of t, i[1] of u, i[2] of s, real numbers with 0 <= i[0] < i[1] <= i[2] <= N-1.
typedef void        (*ctm_times_fn)(const ctm_config *cfg, uint64_t step, uint64_t index, double i[3]);
// The point x_u [B,D] at level u from which the target jumps. No gradient flows through it.
typedef ctm_tensor *(*ctm_teach_fn)(ctm_tape *tp, const ctm_trainer *tr, const ctm_batch *b);
// What g(x_t,t,t) is compared with in L_DSM [B,D], for data x0 with noise x_t at levels t. No gradient flows through it.
typedef ctm_tensor *(*ctm_aim_fn)(ctm_tape *tp, const ctm_trainer *tr, ctm_tensor *x0, ctm_tensor *x_t, ctm_tensor *t);
typedef double      (*ctm_level_fn)(const ctm_config *cfg, uint64_t step, uint64_t index);     // noise level of a row of L_DSM
typedef double      (*ctm_weight_fn)(const ctm_noise *z, double t, double s);                  // weight of a row of L_CTM

enum { CTM_GAN_NONE, CTM_GAN_HINGE, CTM_GAN_LOG, CTM_GAN_MINIMAX };

// What decides a training run, beside the data, the labels and the teacher. A recipe (chapter 15) fills it in; change what you like
// before ctm_trainer_new copies it.
struct ctm_config {
    char recipe[32];               // the recipe's name, which files of weights and checkpoints keep. Yours if the recipe is yours
    ctm_noise noise;               // copied into a network when that is made: set it before
    // The network for points (ctm_mlp): hidden width H, layers L, width E of the embedding of a noise level.
    int hidden, layers, embed;
    // The network for images (ctm_unet): size x size pixels of so many channels (0: points).
    int    size, channels;
    int    patch;                  // patch x patch pixels are one position of the U-Net (ctm_fold), whose first level is size/patch wide
    int    model_channels;         // width of the U-Net's first level, before channel_mult
    int    channel_mult[8];        // width of every level over model_channels; 0 ends the list
    int    num_blocks;             // blocks per level on the way down (one more on the way up)
    int    attn[4];                // resolutions with attention; 0 ends the list
    double dropout;
    // Labels, for either network.
    int    classes;                // 0: none
    double label_dropout;          // share of the rows that are trained without their label, which makes guidance possible

    // L_CTM (chapters 15 and 16)
    ctm_times_fn  times;           // where jumps begin and end. NULL: there are none, and L_DSM alone trains a teacher
    ctm_teach_fn  teach;           // who walks from t to u
    int           substeps;        // solver steps for each interval of the grid
    int           target_ema;      // who jumps from u to s in the target: 1 the average (paper), 0 the student (authors' code)
    double        share_at_s;      // share of the loss that compares the points at s. The rest (in the paper, all) does so at time zero
    int           distance;        // CTM_L2, CTM_L1, CTM_HUBER; one of your own: ctm_trainer's field distance
    double        huber_c;
    ctm_weight_fn weight;
    // L_DSM
    ctm_aim_fn    aim;             // NULL: there is no L_DSM
    ctm_level_fn  level;
    int           diagonal_batch;  // its rows (s = t is the diagonal of the square of all t and s)
    double        lambda_dsm;      // its weight, a factor on the adaptive one. Without L_CTM it is taken as 1
    int           adaptive;        // 1: scales L_DSM and L_GAN to the gradient of L_CTM at the last layer [eq:lambda]
    // L_GAN; the trainer needs a discriminator, see ctm_trainer_adversary
    int    gan;                    // CTM_GAN_NONE, CTM_GAN_HINGE (authors' code), CTM_GAN_LOG, CTM_GAN_MINIMAX (the paper to the letter)
    int    gan_period;             // one step in gan_period trains the student, the others the discriminator; 1: both in every step
    long   gan_start;              // first step with it; before, every step is as if gan were CTM_GAN_NONE
    double lambda_gan;             // its weight, a factor on the adaptive one, which is kept between 0.01 and 10
    int    gan_hidden, gan_layers; // of the discriminator
    double gan_lr;                 // the discriminator's own RAdam, at a constant learning rate
    // The optimiser (chapter 10)
    int    optimiser;              // CTM_ADAM, CTM_RADAM
    double lr, beta2;              // (beta1 is 0.9, eps 1e-8)
    double clip;                   // a total gradient longer than this is shortened to it; 0: never
    double warmup, final_lr;       // share of the steps with rising lr; then half a cosine down to final_lr·lr (1: constant) at the last
                                   // of `steps`, where it stays: with 0, further steps change nothing
    double ema_rate[4];            // ema[0] is G_ema of the losses and the one to sample from; 0 ends the list
    int    ema_warmup;             // 1: step k uses at most (k+1)/(k+10), so that a short run forgets its beginning
    int    batch, shards;          // rows of L_CTM; the batch is cut into this many pieces for the threads: another number rounds otherwise
    long   steps;                  // of the learning rate's schedule; the loop is yours. 0: no schedule
    uint64_t seed;
};
// One setting by its name in this struct, from text: ("lr", "0.001"), ("times", "paper"), ("ema_rate[1]", "0.9999"). 1; or 0 with
// ctm_error, which says what is possible, and cfg as it was.
CTMDEF int ctm_config_set(ctm_ctx *ctx, ctm_config *cfg, const char *name, const char *value);
CTMDEF int ctm_config_fits(ctm_ctx *ctx, const ctm_config *cfg);   // 1 if a run can have these settings together; or 0 with ctm_error
#ifndef CTM_NO_STDIO
CTMDEF void ctm_config_print(const ctm_config *cfg);      // every setting and its value, to stdout
#endif

// ---- CHAPTER 15. RECIPES --------------------------------------------------------------------------------------------

CTMDEF ctm_config ctm_recipe_paper(void);      // the paper's algorithm, with a distance of squares in place of LPIPS and no adversary
CTMDEF ctm_config ctm_recipe_authors(void);    // what differs in the code that the paper's authors published
CTMDEF ctm_config ctm_recipe_points(void);     // ours for points that have an exact teacher
CTMDEF ctm_config ctm_recipe_images(void);     // ours for images with a learned teacher
CTMDEF ctm_config ctm_recipe_cd(void);         // consistency distillation (Song et al.): s the end, u one grid step after t  [eq:cm]
CTMDEF ctm_config ctm_recipe_ct(void);         // consistency training: the same without a teacher
// A teacher learned from data, with the student's sizes, seed and classes: L_DSM alone, optimiser of its own (see ctm_trainer_new).
CTMDEF ctm_config ctm_recipe_teacher(const ctm_config *student);
// The recipe of that name: "paper", "authors", "points", "images", "cd", "ct". 1; or 0 with ctm_error, which lists them.
CTMDEF int ctm_recipe_named(ctm_ctx *ctx, const char *name, ctm_config *cfg);

// For cfg.times. All of them use the random stream "times" of cfg->seed.
CTMDEF void ctm_times_paper(const ctm_config *cfg, uint64_t step, uint64_t index, double i[3]);    // t, s, then u between  [eq:law_paper]
CTMDEF void ctm_times_local(const ctm_config *cfg, uint64_t step, uint64_t index, double i[3]);    // as paper, u one grid step after t
CTMDEF void ctm_times_global(const ctm_config *cfg, uint64_t step, uint64_t index, double i[3]);   // as paper, u = s
CTMDEF void ctm_times_authors(const ctm_config *cfg, uint64_t step, uint64_t index, double i[3]);  // P(h) ~ h grid steps t to u  [eq:law_h]
CTMDEF void ctm_times_points(const ctm_config *cfg, uint64_t step, uint64_t index, double i[3]);   // short jumps, u = s  [eq:law_gap]
CTMDEF void ctm_times_images(const ctm_config *cfg, uint64_t step, uint64_t index, double i[3]);   // to the end, or as points
CTMDEF void ctm_times_cm(const ctm_config *cfg, uint64_t step, uint64_t index, double i[3]);       // u one grid step after t, s the end
// For cfg.teach.
// Heun's method on the teacher, or on g_ema(x,t,t) if there is none.
CTMDEF ctm_tensor *ctm_teach_solver(ctm_tape *tp, const ctm_trainer *tr, const ctm_batch *b);
// Without a teacher: the average's own jump G_ema(x_t,t,u), or one such jump for each grid step.  [eq:self_teach]
CTMDEF ctm_tensor *ctm_teach_jump(ctm_tape *tp, const ctm_trainer *tr, const ctm_batch *b);
CTMDEF ctm_tensor *ctm_teach_jumps(ctm_tape *tp, const ctm_trainer *tr, const ctm_batch *b);
// Without a teacher: x_0 + u·eps with the noise of x_t, right on average for short ways.
CTMDEF ctm_tensor *ctm_teach_data(ctm_tape *tp, const ctm_trainer *tr, const ctm_batch *b);
// For cfg.aim.
CTMDEF ctm_tensor *ctm_aim_data(ctm_tape *tp, const ctm_trainer *tr, ctm_tensor *x0, ctm_tensor *x_t, ctm_tensor *t);     // x_0
CTMDEF ctm_tensor *ctm_aim_teacher(ctm_tape *tp, const ctm_trainer *tr, ctm_tensor *x0, ctm_tensor *x_t, ctm_tensor *t);  // D(x_t,t)
// For cfg.level, in the stream "dsm.sigma".  [eq:dsm_law]
CTMDEF double ctm_level_edm(const ctm_config *cfg, uint64_t step, uint64_t index);       // log-normal
CTMDEF double ctm_level_authors(const ctm_config *cfg, uint64_t step, uint64_t index);   // half of the rows so, the others high on the grid
CTMDEF double ctm_level_uniform(const ctm_config *cfg, uint64_t step, uint64_t index);   // uniform in the grid index

// ---- CHAPTER 16. LOSSES ---------------------------------------------------------------------------------------------

// x_est: G_theta(x_t,t,s), a point at s, carried to time zero by the frozen ema; x_target likewise from x_u, where
// `net` jumps to s. x [B,D], times [B] -> the
// end [B,D], or with ema NULL the point at s; *at_s, if at_s is not NULL, becomes the point at s.
CTMDEF ctm_tensor *ctm_x_est(ctm_tape *tp, ctm_net *theta, ctm_net *ema, ctm_tensor *x_t, ctm_tensor *t, ctm_tensor *s,
                             ctm_tensor **at_s);                                       // [eq:x_est]
CTMDEF ctm_tensor *ctm_x_target(ctm_tape *tp, ctm_net *net, ctm_net *ema, ctm_tensor *x_u, ctm_tensor *u, ctm_tensor *s,
                                ctm_tensor **at_s);                                    // [eq:x_target], not recorded
// Weights of L_CTM by the noise levels of a row, for cfg.weight.  [eq:weights]
CTMDEF double ctm_weight_uniform(const ctm_noise *z, double t, double s);         // 1: the paper's, and every recipe's here
CTMDEF double ctm_weight_snr(const ctm_noise *z, double t, double s);             // t^-2, the signal-to-noise ratio
CTMDEF double ctm_weight_truncated_snr(const ctm_noise *z, double t, double s);   // max(t^-2, 1)
CTMDEF double ctm_weight_karras(const ctm_noise *z, double t, double s);          // t^-2 + sigma_data^-2 = 1/c_out²: that of L_DSM
CTMDEF double ctm_weight_uniform_g(const ctm_noise *z, double t, double s);       // 1/(1 - s/t): undoes the factor of g in G
// The factor on X that makes its gradient as long as that of L, from both gradients at the n weights of the last layer; 0 to 1e4.
CTMDEF double ctm_adaptive_weight(const ctm_real *grad_L, const ctm_real *grad_X, size_t n);  // [eq:lambda]
// A distance of your own, d(a,b) [B] of a, b [B,D], made of tape operations so that it has a gradient with respect to a (b wants none).
// (From [B,D] to [B]: ctm_linear with a column of numbers [D,1] and ctm_reshape, or an operation of your own.) Called by several
// threads at once: what it reads (a feature network: frozen) must not change meanwhile. What it sees depends on cfg.share_at_s: where that
// is between 0 and 1 it is called twice a shard, once with noisy points at s scaled to the data's size. One that knows clean images only
// (LPIPS) wants 0. L_DSM always uses squares.
typedef ctm_tensor *(*ctm_distance_fn)(void *user, ctm_tape *tp, ctm_tensor *a, ctm_tensor *b);
#ifndef CTM_NO_IMAGES
// The perceptual distance LPIPS as a ctm_distance_fn: tr->distance = ctm_lpips_distance, tr->distance_user = the ctm_lpips, which
// ctm_lpips_load (chapter 21) makes. Rows are images in [-1,1], pixel by pixel, channels innermost.  [eq:lpips]
enum { CTM_POOL_MEAN, CTM_POOL_MAX };
typedef struct ctm_lpips {
    ctm_net    *net;                   // VGG16's convolutions (frozen), then lin0 .. lin4: the square roots of the features' weights
    ctm_tensor *scale, *shift;         // what turns [-1,1] into VGG's inputs: a 1x1 window [1,1,channels,3] and [3]
    int         size, channels;        // of the images; one channel counts as grey
    int         pool;                  // CTM_POOL_MEAN: means of 2x2, as CTM's authors do; CTM_POOL_MAX: LPIPS as published. Yours to set
} ctm_lpips;
CTMDEF ctm_tensor *ctm_lpips_distance(void *lpips, ctm_tape *tp, ctm_tensor *a, ctm_tensor *b);
#endif
// The adversarial losses of logits [B,K] as parts of the mean over n logits; scalars. kind: CTM_GAN_HINGE, _LOG, _MINIMAX.
CTMDEF ctm_tensor *ctm_gan_student_loss(ctm_tape *tp, int kind, ctm_tensor *fake, double n);                      // [eq:L_gan]
CTMDEF ctm_tensor *ctm_gan_disc_loss(ctm_tape *tp, int kind, ctm_tensor *real, ctm_tensor *fake, double n);       // [eq:L_disc]

// ---- CHAPTER 17. ONE TRAINING STEP ----------------------------------------------------------------------------------

// Writes sample `index` of step `step`: D numbers, standardised to std sigma_data. May be called from several threads.
typedef void (*ctm_draw_fn)(void *user, const ctm_rng *rng, uint64_t step, uint64_t index, ctm_real *x0);
// The class of the very sample that draw gives for the same (rng, step, index): 0 .. classes-1, or -1 if it has none. Called by
// several threads like draw.
typedef int (*ctm_label_fn)(void *user, const ctm_rng *rng, uint64_t step, uint64_t index);

typedef struct ctm_shard {             // one piece of the batch, worked on by one thread or, if there are more, by several
    ctm_trainer *tr;
    int          first, rows;          // its rows of L_CTM (global numbers first .. first+rows-1)
    int          dfirst, drows;        // its rows of the diagonal term
    ctm_arena    arena;
    ctm_tape     tape;
    ctm_net     *theta_ctm, *theta_dsm;// views of the student: its weights, and this shard's gradient of either loss
    double       L_ctm, L_dsm;         // this shard's part of the batch means
    ctm_net     *theta_gan;            // as theta_ctm, for the adversarial loss; NULL without a discriminator, as are the next two
    ctm_net     *disc, *disc_frozen;   // views of the discriminator: with this shard's gradient; without any
    double       L_gan, L_disc, disc_real, disc_fake;
} ctm_shard;

// Processes that train one model together, each with all of the model and its own shards of every batch. cfg.batch, diagonal_batch and
// shards are those of all together, so a run has the same rows, losses and learning rate however many there are; shards must not be
// fewer. Process `rank` works on shards rank·shards/count to (rank+1)·shards/count. With one shard each, and sums in the order of
// the ranks, even the bits of the weights are those of one process (the losses that are reported may differ in the last digit).
typedef struct ctm_processes {
    int rank, count;
    // Each of v[0..n-1] becomes its sum over all processes, bit for bit the same on every one of them. 1; or 0 if that failed: then
    // the step changes nothing. All processes call it in the same order with the same n. A NaN must stay one.
    int (*sum)(void *user, size_t n, ctm_real *v);
    void *user;
} ctm_processes;

struct ctm_trainer {
    ctm_ctx     *ctx;
    ctm_config   cfg;
    ctm_net     *theta;                // the student; yours
    ctm_net     *ema[4]; int emas;     // moving averages; ema[0] is G_ema
    const ctm_denoiser *teacher;       // NULL: none (self-teaching on g(x,t,t) of ema[0])
    ctm_opt      opt;
    ctm_draw_fn  draw; void *user;
    ctm_rng      rng_data, rng_noise, rng_dsm_data, rng_dsm_noise;
    ctm_rng      rng_label, rng_dsm_label;      // whose label is dropped
    ctm_rng      rng_dropout, rng_dsm_dropout;  // of the networks' dropout; the teacher has none
    long         step;                 // steps done
    ctm_shard   *shard; int shards;    // this process's
    ctm_processes all;                 // {0, 1, NULL, NULL} if there is only this one
    char         note[400];            // after ctm_checkpoint_load: a line if the bits may differ from those of a run in one piece
    double       L_ctm, L_dsm, lambda_dsm, grad_norm, lr;   // of the last step
    ctm_real    *g_ctm, *g_dsm;        // gradients of the two losses, summed over shards and processes
    double      *squares;              // of the total gradient, summed over stretches
    ctm_denoiser *self;                // ema[0] as its own teacher
    // Yours to set between ctm_trainer_new and the first step:
    ctm_label_fn  label; void *label_user;         // classes of the rows; NULL: none (and then cfg.classes must be 0)
    ctm_distance_fn distance; void *distance_user; // in place of cfg.distance; NULL: cfg.distance
    // Of the last step that had them, once ctm_trainer_adversary was called:
    ctm_net      *disc;                // the discriminator; yours
    ctm_opt       disc_opt;
    double        L_gan, L_disc, lambda_gan;
    double        disc_real, disc_fake;            // mean logit on data and on fakes: if they drift far apart, the student has lost
    ctm_real     *g_gan;               // gradient of the adversarial loss, summed over shards
};

// All memory from `a`, but for the shards' arenas, which ctm_trainer_free gives back: call it before you free `a`. The teacher and the
// student must outlive the trainer; cfg is copied. A teacher is trained by the same trainer, with ctm_recipe_teacher and a network
// without s (ctm_mlp's last argument 0); ctm_net_denoiser of its ema[0] is then the teacher of a student. Labels reach a teacher that
// is a network; one that is not (ctm_mixture) knows nothing of them.
CTMDEF ctm_trainer *ctm_trainer_new(ctm_arena *a, const ctm_config *cfg, ctm_net *theta, const ctm_denoiser *teacher,
                                    ctm_draw_fn draw, void *user);
// The same for one of several processes (*all is copied): cfg, weights and, on resuming, checkpoint must be equal on each.
CTMDEF ctm_trainer *ctm_trainer_new_among(ctm_arena *a, const ctm_config *cfg, ctm_net *theta, const ctm_denoiser *teacher,
                                          ctm_draw_fn draw, void *user, const ctm_processes *all);
// Gives the trainer its adversary for cfg.gan: a network with forward(x [B,D], NULL, NULL) -> logits [B,K], which from cfg.gan_start
// on is trained beside the student, with its own optimiser. Call before the first step and before ctm_checkpoint_load.
CTMDEF void ctm_trainer_adversary(ctm_arena *a, ctm_trainer *tr, ctm_net *disc);
// One step of the algorithm. 1; or 0 with a line in ctm_error: a loss or a gradient was not finite (L_* and grad_norm show which), or
// the processes' sums failed. Weights, averages, optimisers and step are then as before. After a number that is not
// finite another try fails on the same draws: change the settings, or go back to a checkpoint.  [alg:train]
CTMDEF int  ctm_train_step(ctm_trainer *tr);
CTMDEF void ctm_losses_shard(ctm_shard *sh);           // the losses and gradients of one shard; the heart of it is ctm__ctm_loss
CTMDEF void ctm_trainer_free(ctm_trainer *tr);         // gives back the shards' arenas

// ---- CHAPTER 18. SAMPLERS -------------------------------------------------------------------------------------------
// Every sampler carries x [B,D] at level ts[0] through n+1 decreasing levels to ts[n], leaves x as it is, and returns a [B,D] in the
// tape's arena; NULL with a line in ctm_error if levels or settings are no good. (These come from users; a wrong shape panics.) Samplers
// on a jump G record if the tape does. `how` may be NULL: ctm_sampler_default(). From noise to samples, the long way:
//        ctm_tape_init(&tape, &ctx, &arena);   tape.recording = 0;
//        ctm_tensor *x = ctm_matrix(&tape, "x_T", B, D);                        // sigma_max times standard normals:
//        ctm_normals(&rng, 0, 0, x->len, x->data);   x = ctm_scale(&tape, x, net->noise.sigma_max);
//        ctm_karras_times(&net->noise, n + 1, ts);                             // n jumps
//        ctm_tensor *y = ctm_sample_gamma(&tape, ctm_net_jump(&arena, net), x, n, ts, NULL);

enum { CTM_FORM_PAPER, CTM_FORM_AUTHORS };                             // where the paper and the authors' code differ
// How a sampler runs; begin with ctm_sampler_default().
typedef struct ctm_sampler {
    double         gamma;              // jumps: 0 stays on the ODE's path; 1 is the consistency model's multistep sampler
    int            form;               // jumps: how the intermediate level s is chosen, see [alg:gamma]
    const ctm_rng *rng;                // stream of the noise added on the way: step = 0 for the first noise of this run, 1 for the
                                       // second, ...; index = row·D + column
    uint64_t       first_row;          // global number of row 0
    const ctm_real *noise;             // instead of rng: recorded noise [draws,B,D]
    int          (*watch)(void *user, int n, double t, const ctm_tensor *x);   // after step n (1..), at level t; 0 stops there; may be NULL
    void          *user;
    double         S_churn, S_min, S_max, S_noise;  // steps on a score (not ancestral): noise added before each, as in EDM; the default
                                       // is none, with any level allowed
} ctm_sampler;
CTMDEF ctm_sampler ctm_sampler_default(void);     // gamma 0, the paper's form, no noise, nobody watches, no churn
// The gamma family [alg:gamma]. Draws n-1 noises, one after every jump but the last; none if gamma = 0.
CTMDEF ctm_tensor *ctm_sample_gamma(ctm_tape *tp, const ctm_jump *G, ctm_tensor *x, int n, const double *ts,
                                    const ctm_sampler *how);
// A jump t0 -> t1, noise up to t2 >= t1, a jump to sigma_min. One noise; of `how` only the noise and watch count.  [alg:two_step]
CTMDEF ctm_tensor *ctm_sample_two_step(ctm_tape *tp, const ctm_jump *G, ctm_tensor *x, double t0, double t1, double t2,
                                       const ctm_sampler *how);

// Steps on the score: CTM_HEUN and CTM_EULER of chapter 12, and these. A CTM's score is read at s = t (ctm_net_denoiser).
//   CTM_DPM2       midpoint in the cube root of t                                  2 evaluations a step      [alg:dpm2]
//   CTM_ANCESTRAL  Euler below the next level, then noise up to it                 1                         [alg:ancestral]
//   CTM_DDIM       (t'/t)·x + (1 - t'/t)·D, progressive distillation's step       1                         [alg:ddim]
// n steps of `method`; ts[n] may be 0, where Heun's step becomes Euler's. Step j has noise j, whether those before it used theirs or
// not: recorded noise is [n,B,D]. Not recorded.  [alg:heun] [alg:churn]
CTMDEF ctm_tensor *ctm_sample_score(ctm_tape *tp, const ctm_denoiser *D, int method, ctm_tensor *x, int n, const double *ts,
                                    const ctm_sampler *how);
CTMDEF ctm_tensor *ctm_sample_heun(ctm_tape *tp, const ctm_denoiser *D, ctm_tensor *x, int n, const double *ts);   // how = NULL
CTMDEF ctm_tensor *ctm_sample_euler(ctm_tape *tp, const ctm_denoiser *D, ctm_tensor *x, int n, const double *ts);
// The short way: n points x [n,D] at sigma_max become samples, in place, without labels. net must know s. rng may be NULL if gamma is 0
// or jumps 1. It must not be the stream that x came from, which would give the noise of x once more. 1, or 0 with ctm_error.
CTMDEF int ctm_sample_points(ctm_net *net, ctm_real *x, int n, int jumps, double gamma, const ctm_rng *rng);

// ---- CHAPTER 19. LIKELIHOOD -----------------------------------------------------------------------------------------
// Results are logarithms of a density in the model's units: ctm_loglik's of the data with noise of level sigma_min, ctm_elbo's of the
// data. 1; or 0 with ctm_error if D has no score or `how` is no good. (Steps below 1 panic, and so does a D that is not made of tape
// operations.) A network must be frozen (a moving average, or a view without gradient), as backward passes would add to its gradients.

// How a likelihood is computed. ctm_likelihood_default() has the values that are named as default.
typedef struct ctm_likelihood {
    int    method;                     // CTM_HEUN, CTM_RK4 (default) or CTM_ADAPTIVE. For eight Gaussians on a ring 80 steps of RK4 are
                                       // good to 1e-4, and 80 of Heun to 0.02
    int    steps;                      // of the first two: intervals of Karras' levels (default 80)
    double tol;                        // of the third: error allowed in a step, in nats and in x, relative to 0.1 + size (default 1e-6)
    double prior_var;                  // the density at sigma_max is that of N(0, (sigma_max² + prior_var)·I) (default 0)
    int    probes;                     // random vectors for the divergence (default 0: it is exact); for ctm_elbo draws, 0 counts as 1
    int    form;                       // ctm_elbo: CTM_FORM_AUTHORS repeats the slip of the authors' residual (default CTM_FORM_PAPER)
    const ctm_rng *rng;                // stream of the probes (index = row·D + column, step = probe; ctm_elbo: 4·draw + 0..3)
    uint64_t first_row;                // global number of row 0
    const double *recorded;            // instead of rng: [probes,n,D]; ctm_elbo: [draws,n,1+3D], each row u, noise, residual's noise, probe
} ctm_likelihood;
CTMDEF ctm_likelihood ctm_likelihood_default(void);
// ln p of n points x [n,D] by the probability-flow ODE, into logp[n]. how NULL: the default.  [eq:loglik] [eq:hutchinson]
CTMDEF int ctm_loglik(ctm_tape *tp, const ctm_denoiser *D, const ctm_noise *z, const ctm_likelihood *how, size_t n, const ctm_real *x,
                      double *logp);
// Unbiased estimates of a lower bound of log p, two evaluations of D and one backward pass a draw; bound[n]. `how` must
// have rng or recorded.  [eq:elbo]
CTMDEF int ctm_elbo(ctm_tape *tp, const ctm_denoiser *D, const ctm_noise *z, const ctm_likelihood *how, size_t n,
                    const ctm_real *x, double *bound);
// Bits per dimension of the data before scaling, where one unit of the model is per_unit units of the data: 127.5 for pixels 0..255
// scaled to [-1,1] (the authors count 128, which adds 7 bits exactly).  [eq:bits]
CTMDEF double ctm_bits_per_dim(double logp, int dim, double per_unit);

// ---- CHAPTER 20. EDITING AND GUIDANCE -------------------------------------------------------------------------------

// Classifier-free guidance: w·g(label) + (1-w)·g(no label), and the same for G, which is affine in g. w = 1 is the labelled
// model, 0 the unlabelled one, beyond 1 exaggerates the class. The order: set cfg.classes and cfg.label_dropout before the network is made,
// tr->label before training, then tp->rows.label = the classes of the rows [B] that you sample, and give this jump to ctm_sample_gamma
// (ctm_net_jump for w = 1). The network must outlive the wrapper. Each costs two evaluations. A student whose teacher is a guided denoiser,
// with cfg.aim = ctm_aim_teacher, learns the guided flow itself, and its jumps cost one.  [eq:guidance]
CTMDEF ctm_jump     *ctm_guided_jump(ctm_arena *a, const ctm_net *net, double w);
CTMDEF ctm_denoiser *ctm_guided_denoiser(ctm_arena *a, const ctm_net *net, double w);

// One point of D numbers through an orthogonal A: out = A·in, or out = A^T·in if inverse.
typedef void (*ctm_transform_fn)(void *user, int inverse, const ctm_real *in, ctm_real *out);
// What is known of a point: some components of y = A·x.
typedef struct ctm_known {
    int    dim;                        // D
    const unsigned char *mask;         // 1 for every component of y that is known: [D], or [B,D] if per_row
    int    per_row;
    ctm_transform_fn transform;        // NULL: A = I
    void  *user;
    double clamp;                      // > 0: at gamma = 1 estimates are limited to [-clamp,clamp]; 0: never. The authors do so, except
                                       // when inpainting
} ctm_known;
CTMDEF ctm_known ctm_known_mask(int dim, const unsigned char *mask, int per_row);      // inpainting; the mask stays yours
// One average w·x is known of every group of m components, w [m]. Group g holds index[g·m] .. index[g·m+m-1], each component in one
// group (NULL: neighbours; copied). Ready-made: the luminance of pixels with three channels innermost; the means of a channel's p x p
// patches.
CTMDEF ctm_known ctm_known_averages(ctm_arena *a, int dim, int m, const int *index, const double *w);
CTMDEF ctm_known ctm_known_grey(ctm_arena *a, int pixels);
CTMDEF ctm_known ctm_known_patches(ctm_arena *a, int size, int channels, int p);
// Samples that agree with ref [B,D] in what is known of it; what else ref holds has no effect. x [B,D] is at ts[0]: ref with noise, or
// noise alone. After each jump one noise is drawn for the known part (if its level is above 0), then one for the step. Not recorded.
// [alg:edit]
CTMDEF ctm_tensor *ctm_edit(ctm_tape *tp, const ctm_jump *G, const ctm_known *known, ctm_tensor *ref, ctm_tensor *x, int n,
                            const double *ts, const ctm_sampler *how);
// ref [B,D] with noise of level ts[0] (the first noise), brought back: the lower ts[0], the more of ref remains.  [alg:stroke]
CTMDEF ctm_tensor *ctm_stroke(ctm_tape *tp, const ctm_jump *G, ctm_tensor *ref, int n, const double *ts, const ctm_sampler *how);

// What guides a sampler; ctm_guide_default() has the numbers named here, and no loss yet.
typedef struct ctm_guide {
    // c(x) at noise level t, summed over the rows of x [B,D]: a scalar made on tp from x, which wants a gradient. For a loss of
    // the clean point, apply G or D to x inside.
    ctm_tensor *(*loss)(void *user, ctm_tape *tp, ctm_tensor *x, double t);
    void  *user;
    double scale;                      // 1
    int    steps;                      // after every jump but the last; 1
    const ctm_denoiser *D;             // NULL: steps along the gradient. Else Langevin steps with the score of D
    double snr;                        // Langevin: size of a step, 0.1; set by the mean norms of the whole batch, as the authors do
} ctm_guide;
CTMDEF ctm_guide ctm_guide_default(void);
// ctm_sample_gamma with steps that lower the loss at every intermediate level s. Each Langevin step draws a noise, then the jump does.
// Not recorded.  [eq:guide] [alg:trajectory]
CTMDEF ctm_tensor *ctm_sample_guided(ctm_tape *tp, const ctm_jump *G, const ctm_guide *guide, ctm_tensor *x, int n,
                                     const double *ts, const ctm_sampler *how);

// score[i] = how good row i of x is (the log-probability of the wanted class); higher is better.
typedef void (*ctm_judge_fn)(void *user, const ctm_tensor *x, double *score);
// ctm_sample_gamma on all rows of x; returns the `keep` rows that were judged best, best first, equals in their order.  [alg:reject]
CTMDEF ctm_tensor *ctm_sample_reject(ctm_tape *tp, const ctm_jump *G, ctm_tensor *x, int n, const double *ts,
                                     const ctm_sampler *how, int keep, ctm_judge_fn judge, void *user);

// ---- CHAPTER 21. FILES: WEIGHTS AND CHECKPOINTS ---------------------------------------------------------------------

#ifndef CTM_NO_STDIO
// Files. Paths are UTF-8, on Windows too. The functions down to ctm_output_drop say what failed in errno, not in ctm_error.
enum { CTM_PATH = 1024 };              // bytes that a path to write to may have, with its ending
typedef enum ctm_kind { CTM_NOTHING, CTM_FILE, CTM_FOLDER, CTM_DEVICE } ctm_kind;
CTMDEF ctm_kind ctm_path_kind(const char *path);                   // what is there; CTM_DEVICE: a pipe and all else, too
CTMDEF FILE    *ctm_fopen(const char *path, const char *mode);     // fopen
// A lock: holds the file `path`, which is made if it is not there, until ctm_let_go removes it or the process ends, however it ends.
// Returns a descriptor, or -1; EAGAIN means that another process holds it. Where a file system has no locks, a new file is held, and
// one that was there already only if `trust`.
CTMDEF int      ctm_hold(const char *path, int trust);
CTMDEF void     ctm_let_go(int held, const char *path);            // harmless with -1

// A file that gets its name when it is complete; until then, and whatever fails, the file of that name stays as it was. The new one grows
// beside it as PATH.tmp (PATH.2.tmp and so on while others write the same), and what a killed program left there is used again. Links are
// followed (on Windows they are replaced), a replaced file keeps its mode, a file that may not be written is refused, and a device or
// pipe is written to directly.
typedef struct ctm_output {
    FILE *file;                        // write to it with stdio's functions; binary. NULL: not open
    char  path[CTM_PATH], target[CTM_PATH];     // the name that was given; the name it will get, where links lead
    char  tmp[CTM_PATH + 16];          // the name it has until then; empty: it is written to directly
    int   held;                        // the lock of tmp
} ctm_output;
CTMDEF FILE *ctm_output_open(ctm_output *out, const char *path);       // out->file, or NULL
CTMDEF int   ctm_output_close(ctm_output *out);    // 1: on the disk, with its name. 0: nothing is left; also if a write failed before
CTMDEF void  ctm_output_drop(ctm_output *out);     // gives it up, and nothing is left; harmless if it is not open

enum { CTM_F32, CTM_F64, CTM_I64, CTM_F16, CTM_BF16, CTM_OTHER };   // types of numbers in a file; CTM_OTHER cannot be read
typedef struct ctm_entry {             // one tensor of a safetensors file
    const char *name, *type;           // type: the file's word for it, "F32"
    int    dtype, ndim, shape[4];      // ndim may be above 4: shape has the first four. A size of 2^31 or more stands as -1
    size_t len, offset, end;           // numbers; the first of its bytes in the file's data part, and the first after them
} ctm_entry;
typedef struct ctm_pair { const char *key, *value; } ctm_pair;
typedef struct ctm_file {              // a file in memory
    ctm_ctx *ctx;
    char     path[512];
    int      count, metas;
    ctm_entry *entry;                  // ordered by name
    ctm_pair  *meta;                   // ordered by key
    const unsigned char *data;         // the data part, in the arena
} ctm_file;
// Reads a whole safetensors file into the arena. NULL with ctm_error if it is missing, cut off, or damaged: texts that are no UTF-8 or have
// a zero byte, names or keys that occur twice, tensors that overlap or leave holes.
CTMDEF ctm_file        *ctm_file_read(ctm_arena *a, const char *path);
CTMDEF const ctm_entry *ctm_file_find(const ctm_file *f, const char *name);            // NULL if absent
CTMDEF const char      *ctm_file_meta(const ctm_file *f, const char *key);             // NULL if absent
CTMDEF int              ctm_file_get(const ctm_file *f, const ctm_entry *e, double *out);   // e->len numbers. 1; or 0 with ctm_error
// Writing: fill in a list, then write it in one go, as a ctm_output. Names, shapes and metadata are copied into the arena; data are not,
// and must still be there when ctm_writer_save reads them. shape is that of data. transposed: data are [..,in,out], of two or four
// dimensions, and the file gets [out,in,..]. ctm_writer_save returns 1; or 0 with ctm_error, also for what nobody could read again, such
// as a text that is no UTF-8 or a name that occurs twice.
typedef struct ctm_writer {
    ctm_ctx *ctx; ctm_arena *arena;
    int half;                          // 1: numbers are rounded to half precision, F16, which ends at 65504
    int count, metas;
    struct ctm__item *item; ctm_pair *meta;
} ctm_writer;
CTMDEF void ctm_writer_init(ctm_writer *w, ctm_arena *a);
CTMDEF void ctm_writer_meta(ctm_writer *w, const char *key, const char *value);
CTMDEF void ctm_writer_add(ctm_writer *w, const char *name, const ctm_real *data, int ndim, const int *shape, int transposed);
CTMDEF int  ctm_writer_save(ctm_writer *w, const char *path);

// A network with its settings. Weights have PyTorch's names and layout ([out,in]). The network is new, in arena `a`. A file is loaded
// only if its network is an "mlp" or a "unet"; for one of yours see ctm_net_read. ctm_load's cfg may be NULL, ctm_save's may not.
// The functions whose names end in _file read a file that is open already, so that one that is looked into is not read twice.
CTMDEF int      ctm_save(ctm_arena *scratch, const ctm_net *net, const ctm_config *cfg, const char *path);
CTMDEF ctm_net *ctm_load(ctm_arena *a, const char *path, ctm_config *cfg);             // NULL with ctm_error
CTMDEF ctm_net *ctm_load_file(ctm_arena *a, const ctm_file *f, ctm_config *cfg);       // keeps nothing of f
// With lines of metadata of your own, in both kinds of file: key, value, key, value, NULL.
CTMDEF int      ctm_save_with(ctm_arena *scratch, const ctm_net *net, const ctm_config *cfg, const char *path, const char *const *pairs);
// Weights by name: every parameter must be in f as prefix followed by its name (prefix "" for none), transposed as PyTorch keeps it,
// and nothing else may begin with prefix but the authors' resample_filter and map_augment, which are passed over. 1; or 0 with
// ctm_error, which names what is missing or superfluous.
CTMDEF int      ctm_net_read(ctm_net *net, const ctm_file *f, const char *prefix);
// Everything that a training run needs to go on bit for bit: the student, its averages, the optimiser, the discriminator and its
// optimiser, the step, the figures of the last step (L_ctm to disc_fake), and the settings. Loading does not set the settings: make the
// trainer with what ctm_config_read finds, or with the same as before. Refused is a checkpoint of another recipe (by its name and its
// functions), of another network, with a discriminator where the trainer has none or the other way round. The bits also need the same
// draw and label, and arithmetic that rounds alike (chapter 1). A checkpoint says which arithmetic wrote it; where this one's differs, or
// nobody can tell, loading succeeds and leaves a line about it in tr->note.
CTMDEF int      ctm_checkpoint_save(ctm_arena *scratch, const ctm_trainer *tr, const char *path, const char *const *pairs);
CTMDEF int      ctm_checkpoint_load(ctm_arena *scratch, ctm_trainer *tr, const char *path);
CTMDEF int      ctm_checkpoint_load_file(ctm_trainer *tr, const ctm_file *f);
CTMDEF int      ctm_config_read(const ctm_file *f, ctm_config *cfg);                   // from metadata; 0 with ctm_error
#ifndef CTM_NO_IMAGES
// LPIPS (chapter 16) for images of size x size pixels (from 256 on a multiple of 16) with 1 or 3 channels. The file has torchvision's
// vgg16 names and LPIPS's: features.0.weight, features.0.bias .. features.28.bias, lin0.model.1.weight .. lin4.model.1.weight, and no
// others; apps/to_safetensors.py makes it. Widths are the file's. NULL with ctm_error.
CTMDEF ctm_lpips *ctm_lpips_load(ctm_arena *a, const char *path, int size, int channels);
#endif
#endif

// ---- CHAPTER 22. THE ENGINE ROOM: THE MATRIX PRODUCT AND THE CONVOLUTION --------------------------------------------

// C[i,j] (+)= sum_k A[i·a_row + k·a_step] · B[k·b_step + j],   i < M, j < N, k < K;   C row stride c_row.
// bias: NULL, or [N] that every row starts from. add: 1 adds to what C holds (bias is then ignored).
CTMDEF void ctm_gemm(ctm_ctx *ctx, int M, int N, int K, const ctm_real *A, ptrdiff_t a_row, ptrdiff_t a_step,
                     const ctm_real *B, ptrdiff_t b_step, ctm_real *C, ptrdiff_t c_row, const ctm_real *bias, int add);
// The definition of the above: three nested loops. The tests compare the two.
CTMDEF void ctm_gemm_naive(int M, int N, int K, const ctm_real *A, ptrdiff_t a_row, ptrdiff_t a_step,
                           const ctm_real *B, ptrdiff_t b_step, ctm_real *C, ptrdiff_t c_row, const ctm_real *bias, int add);
#ifndef CTM_NO_IMAGES
// out = x * w: x [B,H,W,I], w [k,k,I,O], k odd, zeros outside; out [B,H,W,O]. The definition of ctm_conv (chapter 8).
CTMDEF void ctm_conv_naive(int B, int H, int W, int I, int O, int k, const ctm_real *x, const ctm_real *w, ctm_real *out);
#endif
// y = exp(x), x clamped to [-87,88] (not in the double build); log(x) for x > 0; sin and cos of |x| < 1e4: rows of numbers, on the
// context's instruction set, to a few units in the last place.
CTMDEF void ctm_exp_rows(ctm_ctx *ctx, size_t n, const ctm_real *x, ctm_real *y);
CTMDEF void ctm_log_rows(ctm_ctx *ctx, size_t n, const ctm_real *x, ctm_real *y);
CTMDEF void ctm_sincos_rows(ctm_ctx *ctx, size_t n, const ctm_real *x, ctm_real *sine, ctm_real *cosine);

#ifdef __cplusplus
}
#endif
#endif /* CTM_H */

#if defined(CTM_IMPLEMENTATION) && !defined(CTM__PASS) && !defined(CTM__CHAPTERS_1_TO_21)
// =====================================================================================================================
//                                              I M P L E M E N T A T I O N
// =====================================================================================================================
// (CTM__PASS is defined while this file includes itself for the instruction sets of chapter 22.)

#define CTM__CHAPTERS_1_TO_21
#ifndef CTM_SELF
#  define CTM_SELF "ctm.h"
#endif

// A compiler may take two liberties that change results. It may fuse a·b + c into one instruction that rounds once, wherever it likes;
// in this file that happens where it is written (CTM__MADD in chapter 22) and nowhere else. And with -ffast-math it may reorder the sums
// that make exp, sin and the optimiser's square root exact, and forget about NaN; in this file it may not.
#if defined(__clang__)
#  ifdef __FAST_MATH__
#    pragma float_control(push)
#    pragma float_control(precise, on)
#  endif
#  pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__) && !defined(__TINYC__)
#  pragma GCC push_options
#  ifdef __FAST_MATH__
#    pragma GCC optimize("no-fast-math", "fp-contract=off")
#  else
#    pragma GCC optimize("fp-contract=off")
#  endif
#elif defined(_M_FP_FAST)
#  pragma float_control(precise, on, push)
#endif
#ifdef _MSC_VER
#  pragma warning(push)
#  pragma warning(disable: 4996)    // "fopen may be unsafe"
#endif

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#if defined(_OPENMP) && !defined(CTM_NO_OPENMP)
#  include <omp.h>
#endif
#if defined(__linux__)
#  include <sys/mman.h>
#endif
#include <errno.h>
#if !defined(CTM_NO_STDIO) && (defined(__unix__) || defined(__APPLE__) || defined(__wasi__))
#  define CTM__POSIX 1
#  include <unistd.h>
#  include <fcntl.h>
#  include <sys/stat.h>
#  ifndef __wasi__
#    include <sys/file.h>
#  endif
#elif !defined(CTM_NO_STDIO) && defined(_WIN32)
#  include <fcntl.h>
#  include <io.h>
#  include <sys/stat.h>
#endif

// =====================================================================================================================
// CHAPTER 1. ERRORS AND NUMBERS
//
// This chapter holds what all others need: how the program stops at a mistake of yours, how it reports a failure of the outside world, how
// it tests whether a number is finite, and how it writes numbers as text. The test looks at the bits of the exponent, because with
// -ffast-math a compiler may assume that NaN and Inf do not exist, and leave the usual tests out.
// =====================================================================================================================

#ifdef __cplusplus
#  define CTM__LINKAGE extern "C"
#else
#  define CTM__LINKAGE
#endif
#ifdef CTM_STATIC
#  define CTM__DEF static
#else
#  define CTM__DEF CTM__LINKAGE
#endif

#ifndef CTM_MALLOC
#  define CTM_MALLOC(ctx, n) ((void)(ctx), malloc(n))
#  define CTM_FREE(ctx, p)   ((void)(ctx), free(p))
#endif

#ifndef CTM_PANIC
static void ctm__panic_default(const char *msg, const char *file, int line) {
    fprintf(stderr, "ctm: %s\n     (%s:%d)\n", msg, file, line);
    abort();    // not exit: a debugger keeps the whole stack of calls that led here
}
#  define CTM_PANIC(msg, file, line) ctm__panic_default(msg, file, line)
#  ifndef CTM_NO_MEMORY
static void ctm__no_memory_default(const char *msg) {
#if defined(_OPENMP) && !defined(CTM_NO_OPENMP)
    #pragma omp critical(ctm_no_memory)       // threads run out together: one of them says so, and ends all
#endif
    {
        fprintf(stderr, "ctm: %s\n", msg);
        exit(1);
    }
}
#    define CTM_NO_MEMORY(msg, file, line) ctm__no_memory_default(msg)
#  endif
#endif
#ifndef CTM_NO_MEMORY
#  define CTM_NO_MEMORY(msg, file, line) CTM_PANIC(msg, file, line)
#endif

// The two functions below format as printf does; a compiler that knows this checks every message of this file.
#ifdef __GNUC__
#  define CTM__FORMAT(n) __attribute__((__format__(__printf__, n, n + 1)))
#else
#  define CTM__FORMAT(n)
#endif

// Stops the program with a message about a mistake of the programmer.
CTM__FORMAT(2)
static void ctm__panic(int line, const char *format, ...) {
    char msg[512];
    va_list ap;
    va_start(ap, format);
    vsnprintf(msg, sizeof msg, format, ap);
    va_end(ap);
    CTM_PANIC(msg, "ctm.h", line);
}
#define CTM__REQUIRE(ok, ...) do { if (!(ok)) ctm__panic(__LINE__, __VA_ARGS__); } while (0)

// Keeps a message about a failure of the outside world. It returns 0, so that callers can write `return ctm__fail(...)`.
CTM__FORMAT(2)
static int ctm__fail(ctm_ctx *ctx, const char *format, ...) {
    va_list ap;
    char *c;
    va_start(ap, format);
    vsnprintf(ctx->error, sizeof ctx->error, format, ap);
    va_end(ap);
    for (c = ctx->error; *c; c++) if ((unsigned char)*c < 32 || *c == 127) *c = '?';    // one line, whatever a file holds
    return 0;
}

CTM__DEF const char *ctm_error(const ctm_ctx *ctx) { return ctx->error; }
#ifndef CTM_STATIC
CTM__DEF void CTM__REAL_IS(void) {}
#endif

CTM__DEF int ctm_is_finite(double v) {
    uint64_t bits;
    memcpy(&bits, &v, 8);
    return (bits >> 52 & 0x7ff) != 0x7ff;    // all exponent bits set: infinite or not a number
}

// Numbers as text. The C library writes and reads them with the decimal point of the user's language, which may be a comma, or longer
// than a byte. Files and printed text have '.' in every language. To find out the language's own, let it write 0.5.
static void ctm__point(char point[8]) {
    char half[16];
    int n = snprintf(half, sizeof half, "%.1f", 0.5) - 2;
    memset(point, 0, 8);
    memcpy(point, half + 1, (size_t)(n < 7 ? n : 7));
}

static void ctm__real_text(char *text, size_t size, int digits, double v) {
    char point[8], *at;
    ctm__point(point);
    snprintf(text, size, "%.*g", digits, v);
    at = strstr(text, point);
    if (at) { *at = '.'; memmove(at + 1, at + strlen(point), strlen(at + strlen(point)) + 1); }
}

// A finite number and nothing else.
static int ctm__real_read(const char *text, double *v) {
    char here[64], point[8], *end;
    const char *at = strchr(text, '.');
    ctm__point(point);
    if (!*text || text[strspn(text, "0123456789+-.eE")] || strlen(text) > 50) return 0;
    if (at) snprintf(here, sizeof here, "%.*s%s%s", (int)(at - text), text, point, at + 1);
    else    snprintf(here, sizeof here, "%s", text);
    *v = strtod(here, &end);
    return *end == 0 && ctm_is_finite(*v);
}

static int    ctm__imin(int a, int b)       { return a < b ? a : b; }
static double ctm__dmin(double a, double b) { return a < b ? a : b; }
static double ctm__dmax(double a, double b) { return a > b ? a : b; }

// sqrt(a² - b²), and exactly 0 unless a > b. It does not subtract squares, because a compiler may fuse a·a - b·b into one instruction;
// then only one of the squares is rounded, and for a = b the rounding error is left.
static double ctm__root_of_difference(double a, double b) { return a > b ? sqrt((a - b) * (a + b)) : 0; }

// =====================================================================================================================
// CHAPTER 2. RANDOM NUMBERS
//
// A usual generator has a state, and every number that is taken from it changes the state. Then results depend on the order in which
// threads run. A counter-based generator is a function instead, which scrambles a counter under a key: normal number i of step n in the
// stream "noise" is  f(key(seed, "noise"), n, i),  whoever asks for it and whenever.
//
// The function is Philox4x32-10 (Salmon et al., SC 2011): ten rounds of two 32x32 -> 64 bit products whose halves are exchanged and mixed
// with the key. It passes the usual batteries of tests, and its published test vector is among ours.
// =====================================================================================================================

CTM__DEF ctm_rng ctm_stream(uint64_t seed, const char *name) {
    uint64_t h = 1469598103934665603ull ^ seed;    // like FNV-1a over the name, but with a start of its own and the seed, then finalised
    ctm_rng rng;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 1099511628211ull;
    h ^= h >> 33; h *= 0xff51afd7ed558ccdull;
    h ^= h >> 33; h *= 0xc4ceb9fe1a85ec53ull;
    h ^= h >> 33;
    rng.key[0] = (uint32_t)h;
    rng.key[1] = (uint32_t)(h >> 32);
    return rng;
}

CTM__DEF void ctm_bits(const ctm_rng *rng, uint64_t step, uint64_t block, uint32_t out[4]) {
    uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32), c2 = (uint32_t)step, c3 = (uint32_t)(step >> 32);
    uint32_t k0 = rng->key[0], k1 = rng->key[1];
    int round;
    for (round = 0; round < 10; round++) {
        uint64_t p = (uint64_t)0xD2511F53u * c0, q = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(q >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)q;
        c2 = (uint32_t)(p >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0; out[1] = c1; out[2] = c2; out[3] = c3;
}

// The middle of one of 2^24 equal cells of (0,1): never 0, never 1, so ln(u) is finite.
static double ctm__unit(uint32_t bits) { return ((double)(bits >> 8) + 0.5) / 16777216.0; }

// We compute ln(u), cos(2 pi v) and sin(2 pi v) ourselves, to 1e-12, so that normal numbers do not depend on the C library.
//   ln: u = m·2^e with m near 1; with y = (m-1)/(m+1), ln m = 2(y + y³/3 + y⁵/5 + ...).
static double ctm__ln(double u) {
    static const double inverse[9] = {1, 1.0 / 3, 1.0 / 5, 1.0 / 7, 1.0 / 9, 1.0 / 11, 1.0 / 13, 1.0 / 15, 1.0 / 17};
    uint64_t bits;
    int64_t e;
    double m, y, z, sum = 0;
    int k;
    memcpy(&bits, &u, 8);
    e = ((int64_t)bits - (int64_t)0x3FE6A09E667F3BCDull) >> 52;     // so that m lies in [sqrt(1/2), sqrt(2))
    bits -= (uint64_t)e << 52;
    memcpy(&m, &bits, 8);
    y = (m - 1) / (m + 1);
    z = y * y;
    for (k = 17; k >= 1; k -= 2) sum = sum * z + inverse[k / 2];
    return 2 * y * sum + (double)e * 0.693147180559945309;
}
//   cos and sin: fold 2 pi v into an angle a of at most pi/4 and take the Taylor series of both there.
static void ctm__cos_sin_2pi(double v, double *cosine, double *sine) {
    static const double even[7] = {1.0 / 2, 1.0 / 12, 1.0 / 30, 1.0 / 56, 1.0 / 90, 1.0 / 132, 1.0 / 182};    // 1/(1·2), 1/(3·4), ...
    static const double odd[7]  = {1.0 / 6, 1.0 / 20, 1.0 / 42, 1.0 / 72, 1.0 / 110, 1.0 / 156, 1.0 / 210};   // 1/(2·3), 1/(4·5), ...
    double q = 4 * v, a, z, c = 1, s = 1;
    int quarter = (int)(q + 0.5), k;                      // v in (0,1): quarter in 0..4
    a = (q - quarter) * 1.57079632679489662;
    z = a * a;
    for (k = 6; k >= 0; k--) { c = 1 - z * even[k] * c; s = 1 - z * odd[k] * s; }
    s *= a;
    switch (quarter & 3) {
    case 0:  *cosine = c;  *sine = s;  break;
    case 1:  *cosine = -s; *sine = c;  break;
    case 2:  *cosine = -c; *sine = -s; break;
    default: *cosine = s;  *sine = -c; break;
    }
}

CTM__DEF double ctm_uniform(const ctm_rng *rng, uint64_t step, uint64_t index) {
    uint32_t r[4];
    ctm_bits(rng, step, index / 4, r);
    return ctm__unit(r[index % 4]);
}

// Box-Muller: two uniforms give sqrt(-2 ln u)·cos(2 pi v) and sqrt(-2 ln u)·sin(2 pi v), two independent normals.
static void ctm__four_normals(const ctm_rng *rng, uint64_t step, uint64_t block, double out[4]) {
    uint32_t r[4];
    int i;
    ctm_bits(rng, step, block, r);
    for (i = 0; i < 4; i += 2) {
        double radius = sqrt(-2 * ctm__ln(ctm__unit(r[i]))), c, s;
        ctm__cos_sin_2pi(ctm__unit(r[i + 1]), &c, &s);
        out[i]     = radius * c;
        out[i + 1] = radius * s;
    }
}

CTM__DEF double ctm_normal(const ctm_rng *rng, uint64_t step, uint64_t index) {
    double z[4];
    ctm__four_normals(rng, step, index / 4, z);
    return z[index % 4];
}

CTM__DEF void ctm_normals(const ctm_rng *rng, uint64_t step, uint64_t first, size_t n, ctm_real *out) {
    double z[4];
    uint64_t block = first / 4;
    size_t i;
    ctm__four_normals(rng, step, block, z);
    for (i = 0; i < n; i++) {
        uint64_t at = first + i;
        if (at / 4 != block) ctm__four_normals(rng, step, block = at / 4, z);
        out[i] = (ctm_real)z[at % 4];
    }
}

// =====================================================================================================================
// CHAPTER 3. MEMORY
//
// A training step makes a few hundred tensors and then needs none of them any more. An arena suits that: allocating means adding to a
// counter, and forgetting everything means setting it back. When a block is full, the next one is used. Blocks are kept, so after the
// first few steps the system is hardly ever asked for memory.
// =====================================================================================================================

typedef struct ctm__block { struct ctm__block *next; size_t size, used; unsigned char *start; } ctm__block;

CTM__DEF void ctm_arena_init(ctm_arena *a, ctm_ctx *ctx, const char *name) {
    CTM__REQUIRE(ctx && ctx->kernels, "ctm_arena_init: \"%s\" needs a context on which ctm_init was called", name);
    memset(a, 0, sizeof *a);
    snprintf(a->name, sizeof a->name, "%s", name);
    a->ctx = ctx;
}

// Keeps the context's count of bytes held; arenas may grow and go in several threads at once.
static void ctm__count_memory(ctm_ctx *ctx, size_t more, size_t less) {
#if defined(_OPENMP) && !defined(CTM_NO_OPENMP)
    #pragma omp critical(ctm_memory)
#endif
    {
        ctx->allocated += more;
        ctx->allocated -= less;
        if (ctx->allocated > ctx->high) ctx->high = ctx->allocated;
    }
}

// A program that walks over hundreds of megabytes waits less for its page tables if the system uses large pages, and its speed varies
// less. This asks for them. It is a hint that changes nothing else, and not every system knows it.
static void ctm__large_pages(unsigned char *p, size_t size) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    size_t page = (size_t)1 << 21, skip = (page - (uintptr_t)p % page) % page;
    if (size >= 2 * page + skip) (void)madvise(p + skip, (size - skip) / page * page, MADV_HUGEPAGE);
#else
    (void)p; (void)size;
#endif
}

// NULL when the system has no more.
static ctm__block *ctm__block_new(ctm_arena *a, size_t need) {
    size_t size = a->now ? 2 * a->now->size : (size_t)1 << 16;
    unsigned char *raw;
    ctm__block *b;
    if (size > (size_t)1 << 26) size = (size_t)1 << 26;
#ifdef CTM__TIGHT                                                // for tests: a block for every piece of memory, so that each can be
    size = 0;                                                    // refused, and a sanitizer sees its end
#endif
    if (size < need) size = need;
    raw = size > SIZE_MAX - 256 ? NULL : (unsigned char *)CTM_MALLOC(a->ctx, size + 192);
    if (!raw) return NULL;
    ctm__large_pages(raw, size);
    b = (ctm__block *)(void *)raw;                               // the block's record sits in front of its memory
    b->start = raw + 128;
    b->start += (64 - (uintptr_t)b->start % 64) % 64;
    b->size = size;
    b->used = 0;
    b->next = NULL;
    ctm__count_memory(a->ctx, size, 0);
    return b;
}

// Makes the block after the one in use a block with room for `need` bytes: the first later one that is large enough, or a new one.
// NULL if the system has no more.
static ctm__block *ctm__next_block(ctm_arena *a, size_t need) {
    ctm__block **link = a->now ? &a->now->next : &a->first, **at = link, *b;
    while (*at && (*at)->size < need) at = &(*at)->next;
    b = *at;
    if (b) *at = b->next;
    else if ((b = ctm__block_new(a, need)) == NULL) return NULL;
    b->next = *link;
    *link = b;
    b->used = 0;
    return b;
}

// NULL if the system has no more: for sizes that a file asks for.
static void *ctm__alloc_try(ctm_arena *a, size_t bytes) {
    size_t need = (bytes + 63) / 64 * 64;
    unsigned char *p;
    if (need < bytes) return NULL;
    if (!a->now || a->now->size - a->now->used < need) {
        ctm__block *b = ctm__next_block(a, need);
        if (!b) return NULL;
        a->now = b;
    }
    p = a->now->start + a->now->used;
    a->now->used += need;
    a->used += need;
    if (a->used > a->high) a->high = a->used;
    return p;
}

CTM__DEF void *ctm_alloc_raw(ctm_arena *a, size_t bytes) {
    void *p = ctm__alloc_try(a, bytes);
    char msg[160];
    if (p) return p;
    snprintf(msg, sizeof msg, "out of memory: arena \"%s\" holds %lu bytes and asked for %lu more", a->name, (unsigned long)a->used,
             (unsigned long)bytes);
    CTM_NO_MEMORY(msg, "ctm.h", __LINE__);
    return NULL;
}

CTM__DEF void *ctm_alloc(ctm_arena *a, size_t bytes) {
    void *p = ctm_alloc_raw(a, bytes);
    memset(p, 0, bytes);
    return p;
}

CTM__DEF ctm_mark ctm_arena_mark(ctm_arena *a) {
    ctm_mark m;
    m.block = a->now;
    m.block_used = a->now ? a->now->used : 0;
    m.used = a->used;
    return m;
}

CTM__DEF void ctm_arena_release(ctm_arena *a, ctm_mark m) {
    a->now = m.block;                                            // NULL: nothing was in use yet; `first` is kept
    if (a->now) a->now->used = m.block_used;
    a->used = m.used;
}

// A private arena of a function at work. If a jump out of CTM_PANIC leaves that function, nobody else would know of the arena; so it is
// listed in an arena of the caller. Its record lies in its own first block, which lives as long as the arena does.
static ctm_arena *ctm__guest(ctm_arena *host, const char *name) {
    ctm_arena own, *g;
    ctm_arena_init(&own, host->ctx, name);
    g = (ctm_arena *)ctm_alloc(&own, sizeof *g);
    *g = own;
#if defined(_OPENMP) && !defined(CTM_NO_OPENMP)
    #pragma omp critical(ctm_memory)
#endif
    {
        g->next = host->guest;
        host->guest = g;
    }
    return g;
}

static void ctm__guest_free(ctm_arena *host, ctm_arena *g) {
    ctm_arena own = *g, **link = &host->guest;
#if defined(_OPENMP) && !defined(CTM_NO_OPENMP)
    #pragma omp critical(ctm_memory)
#endif
    {
        while (*link != g) link = &(*link)->next;
        *link = g->next;
    }
    ctm_arena_free(&own);
}

CTM__DEF void ctm_arena_free(ctm_arena *a) {
    ctm__block *b = a->first;
    while (a->guest) ctm__guest_free(a, a->guest);               // only after a jump out of CTM_PANIC
    while (b) {
        ctm__block *next = b->next;
        ctm__count_memory(a->ctx, 0, b->size);
        CTM_FREE(a->ctx, b);
        b = next;
    }
    a->first = a->now = NULL;
    a->used = 0;
}

// =====================================================================================================================
// CHAPTER 4. THREADS
//
// There is one tool: n independent pieces of work, cut in the same way whatever the number of threads. It does not matter which thread
// takes a piece, because a piece writes only its own results, and sums over pieces are made afterwards, in their order.
//
// Loops nest: a training step is a loop over shards of the batch (chapter 17), and each layer inside is a loop over rows or pixels. An
// inner loop runs on the thread that meets it, as long as no thread is without a shard. With 64 threads and 4 shards 60 are, and a layer
// should run on 16. So it is offered to them as OpenMP tasks. A thread that has nothing to do, and so waits at the end of the outer loop,
// takes such a task, and then pieces of that layer until none is left. No more threads are woken than the layers have pieces.
// =====================================================================================================================

#ifndef CTM_PIECE
#  define CTM_PIECE(loop, work) work         // tests/bench.c times each piece by it
#endif

#if defined(_OPENMP) && !defined(CTM_NO_OPENMP) && _OPENMP >= 201107     // tasks and atomic captures
#  define CTM__TASKS 1
#else
#  define CTM__TASKS 0
#endif

typedef struct ctm__loop {
    int n, next;                             // pieces; the first that no thread has taken
    void (*plain)(void *arg, int i);         // the work: with or without scratch memory
    void (*work)(void *arg, int i, void *scratch);
    void *arg;
    unsigned char *scratch;                  // `bytes` for each of the threads that share this loop
    size_t bytes;
} ctm__loop;

static int ctm__threads(const ctm_ctx *ctx) {                    // at most so many share a loop that begins here
#if defined(_OPENMP) && !defined(CTM_NO_OPENMP)
    if (omp_in_parallel()) return ctx->team;
    return ctx->threads > 0 ? ctx->threads : omp_get_max_threads();
#else
    (void)ctx;
    return 1;
#endif
}

// How many threads share a loop of n pieces. Of the loops inside other loops, the context remembers the one of most pieces.
static int ctm__threads_for(ctm_ctx *ctx, int n) {
#if CTM__TASKS
    if (omp_in_parallel()) {
        int most;
        #pragma omp atomic read
        most = ctx->most_pieces;
        if (n > most) {
            #pragma omp critical(ctm_most_pieces)
            if (n > ctx->most_pieces) {
                #pragma omp atomic write
                ctx->most_pieces = n;
            }
        }
    }
#endif
    return ctm__imin(n, ctm__threads(ctx));
}

// What each of them does: take a piece, until there is none.
static void ctm__take_pieces(ctm__loop *l, int thread) {
    for (;;) {
        int i;
#if CTM__TASKS
        #pragma omp atomic capture
#elif defined(_OPENMP) && !defined(CTM_NO_OPENMP)
        #pragma omp critical(ctm_next)
#endif
        i = l->next++;
        if (i >= l->n) return;
        if (l->plain) CTM_PIECE(l, l->plain(l->arg, i));
        else CTM_PIECE(l, l->work(l->arg, i, l->scratch + l->bytes * (size_t)thread));
    }
}

// The threads of a loop begin to work here, or, if this is inside another loop, are asked for help among those that are at work already.
static void ctm__share(ctm__loop *l, int threads) {
#if defined(_OPENMP) && !defined(CTM_NO_OPENMP)
    if (threads > 1 && !omp_in_parallel()) {
        #pragma omp parallel num_threads(threads)
        ctm__take_pieces(l, omp_get_thread_num());
        return;
    }
#endif
#if CTM__TASKS
    if (threads > 1) {
        int k;
        for (k = 1; k < threads; k++) {
            #pragma omp task firstprivate(l, k)
            ctm__take_pieces(l, k);
        }
        ctm__take_pieces(l, 0);
        #pragma omp taskwait
        return;
    }
#endif
    (void)threads;
    ctm__take_pieces(l, 0);
}

CTM__DEF void ctm_parallel_for(ctm_ctx *ctx, int n, void (*work)(void *arg, int i), void *arg) {
    ctm__loop l;
    memset(&l, 0, sizeof l);
    l.n = n; l.plain = work; l.arg = arg;
    ctm__share(&l, ctm__threads_for(ctx, n));
}

// The same with `bytes` of scratch memory for each thread.
static void ctm__parallel_scratch(ctm_arena *a, int n, size_t bytes, void (*work)(void *arg, int i, void *scratch), void *arg) {
    ctm_mark m = ctm_arena_mark(a);
    int threads = ctm__threads_for(a->ctx, n);
    ctm__loop l;
    memset(&l, 0, sizeof l);
    l.n = n; l.work = work; l.arg = arg;
    l.bytes = (bytes + 4095) / 4096 * 4096 + 64;                 // not all at the same place of the cache
    l.scratch = (unsigned char *)ctm_alloc_raw(a, l.bytes * (size_t)threads);
    ctm__share(&l, threads);
    ctm_arena_release(a, m);
}

// Work on n numbers, each by itself, in stretches: so many from `at` on. They are long, so that one thread alone does what is little.
enum { CTM__STRETCH = 65536 };
typedef struct ctm__stretches_job { size_t n; void (*work)(void *arg, size_t at, size_t n); void *arg; } ctm__stretches_job;
static void ctm__stretch_piece(void *arg, int i) {
    const ctm__stretches_job *j = (const ctm__stretches_job *)arg;
    size_t at = (size_t)i * CTM__STRETCH, left = j->n - at;
    j->work(j->arg, at, left < (size_t)CTM__STRETCH ? left : (size_t)CTM__STRETCH);
}
static void ctm__in_stretches(ctm_ctx *ctx, size_t n, void (*work)(void *arg, size_t at, size_t n), void *arg) {
    ctm__stretches_job j;
    j.n = n; j.work = work; j.arg = arg;
    ctm_parallel_for(ctx, (int)((n + CTM__STRETCH - 1) / CTM__STRETCH), ctm__stretch_piece, &j);
}

// A loop whose pieces are full of loops. Threads beyond n help: a team for each piece, as large as the inner loops of the last time
// could use.
static void ctm__parallel_teams(ctm_ctx *ctx, int n, void (*work)(void *arg, int i), void *arg) {
#if CTM__TASKS
    int threads = ctm__threads(ctx), team = n > 0 ? ctm__imin((threads + n - 1) / n, ctx->most_pieces) : 1;
    if (team > 1 && !omp_in_parallel()) {
        ctm__loop l;
        memset(&l, 0, sizeof l);
        l.n = n; l.plain = work; l.arg = arg;
        ctx->team = team;
        ctm__share(&l, ctm__imin(threads, n * team));
        ctx->team = 1;
        return;
    }
#endif
    ctm_parallel_for(ctx, n, work, arg);
}

// =====================================================================================================================
// CHAPTER 5. TENSORS
//
// A tensor is a shape, its numbers, and (if wanted) the gradient of the loss with respect to them. Its name is kept inside, so
// that `print *t` in a debugger begins with who it is. There are no strides: tensors are row-major and contiguous, always.
// Only ctm_rows_of, ctm_reshape and the parameters of a ctm_net_view share another tensor's numbers.
// Stop-gradient needs no operation of its own: a tensor without a buffer for a gradient receives none.
// =====================================================================================================================

static ctm_tensor *ctm__tensor(ctm_arena *a, const char *name, const char *op, int ndim, const int *shape) {
    ctm_tensor *x = (ctm_tensor *)ctm_alloc(a, sizeof *x);
    int i;
    CTM__REQUIRE(ndim >= 0 && ndim <= 4, "%s: %d dimensions? There are 0 to 4", name, ndim);
    snprintf(x->name, sizeof x->name, "%s", name);
    x->op = op;
    x->ndim = ndim;
    x->len = 1;
    for (i = 0; i < ndim; i++) {
        CTM__REQUIRE(shape[i] >= 0, "%s: a dimension cannot be %d", name, shape[i]);
        x->shape[i] = shape[i];
        x->len *= (size_t)shape[i];
    }
    return x;
}

static ctm_tensor *ctm__leaf(ctm_tape *tp, const char *name, int ndim, int d0, int d1) {
    int shape[2];
    ctm_tensor *x;
    shape[0] = d0;
    shape[1] = d1;
    x = ctm__tensor(tp->arena, name, "leaf", ndim, shape);
    x->data = (ctm_real *)ctm_alloc(tp->arena, x->len * sizeof(ctm_real));
    return x;
}

CTM__DEF ctm_tensor *ctm_image(ctm_tape *tp, const char *name, int B, int H, int W, int C) {
    int shape[4];
    ctm_tensor *x;
    shape[0] = B; shape[1] = H; shape[2] = W; shape[3] = C;
    x = ctm__tensor(tp->arena, name, "leaf", 4, shape);
    x->data = (ctm_real *)ctm_alloc(tp->arena, x->len * sizeof(ctm_real));
    return x;
}

CTM__DEF ctm_tensor *ctm_scalar(ctm_tape *tp, const char *name, double value) { return ctm_fill(ctm__leaf(tp, name, 0, 0, 0), value); }
CTM__DEF ctm_tensor *ctm_vector(ctm_tape *tp, const char *name, int n) { return ctm__leaf(tp, name, 1, n, 0); }
CTM__DEF ctm_tensor *ctm_matrix(ctm_tape *tp, const char *name, int rows, int cols) { return ctm__leaf(tp, name, 2, rows, cols); }

CTM__DEF ctm_tensor *ctm_fill(ctm_tensor *x, double value) {
    size_t i;
    for (i = 0; i < x->len; i++) x->data[i] = (ctm_real)value;
    return x;
}

CTM__DEF ctm_tensor *ctm_wants_grad(ctm_tape *tp, ctm_tensor *leaf) {
    leaf->grad = (ctm_real *)ctm_alloc(tp->arena, leaf->len * sizeof(ctm_real));
    return leaf;
}

CTM__DEF ctm_tensor *ctm_rows_of(ctm_tape *tp, ctm_tensor *x, int n) {
    int shape[2];
    ctm_tensor *y;
    CTM__REQUIRE(x->ndim >= 1 && x->ndim <= 2 && n <= x->shape[0], "ctm_rows_of: \"%s\" has no %d rows", x->name, n);
    shape[0] = n;
    shape[1] = x->shape[1];
    y = ctm__tensor(tp->arena, x->name, "leaf", x->ndim, shape);
    y->data = x->data;
    return y;
}

static size_t ctm__row_len(const ctm_tensor *x) {     // numbers behind one value of the first index
    size_t len = 1;
    int i;
    for (i = 1; i < x->ndim; i++) len *= (size_t)x->shape[i];
    return len;
}

static int ctm__same_shape(const ctm_tensor *a, const ctm_tensor *b) {
    int i;
    if (a->ndim != b->ndim) return 0;
    for (i = 0; i < a->ndim; i++) if (a->shape[i] != b->shape[i]) return 0;
    return 1;
}

// =====================================================================================================================
// CHAPTER 6. PRINTING AND BREAKPOINTS
//
// How to look at a tensor, how to find the first NaN or Inf, and two empty functions whose only purpose is that a debugger can stop
// in them. They come before the first operation, so that you can use them from there on.
// =====================================================================================================================

CTM__DEF ctm_tensor *ctm_name(ctm_tensor *x, const char *name) {
    memset(x->name, 0, sizeof x->name);                // a debugger prints the whole array
    snprintf(x->name, sizeof x->name, "%s", name);
    return x;
}

CTM__DEF void ctm_shape_text(const ctm_tensor *x, char *text, size_t size) {
    size_t at = 0;
    int i;
    at += (size_t)snprintf(text, size, "[");
    for (i = 0; i < x->ndim && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, i ? ",%d" : "%d", x->shape[i]);
    if (at < size) snprintf(text + at, size - at, "]");
}

// Stops the program: operation `op` cannot take these two.
static void ctm__bad_shapes(int line, const char *op, const char *rule, const ctm_tensor *a, const ctm_tensor *b) {
    char sa[48], sb[48];
    ctm_shape_text(a, sa, sizeof sa);
    if (b) {
        ctm_shape_text(b, sb, sizeof sb);
        ctm__panic(line, "%s: %s\n     \"%s\" %s\n     \"%s\" %s", op, rule, a->name, sa, b->name, sb);
    } else {
        ctm__panic(line, "%s: %s\n     \"%s\" %s", op, rule, a->name, sa);
    }
}
#define CTM__SHAPES(ok, op, rule, a, b) do { if (!(ok)) ctm__bad_shapes(__LINE__, op, rule, a, b); } while (0)

CTM__DEF int ctm_first_nonfinite(const ctm_tensor *x, size_t *where) {
    size_t i;
    for (i = 0; i < x->len; i++)
        if (!ctm_is_finite((double)x->data[i])) { if (where) *where = i; return 1; }
    return 0;
}

#if defined(__GNUC__)
#  define CTM__NOINLINE __attribute__((__noinline__))
#else
#  define CTM__NOINLINE
#endif
CTM__DEF CTM__NOINLINE void ctm_on_record(ctm_tensor *t)   { (void)t; }
CTM__DEF CTM__NOINLINE void ctm_on_backward(ctm_tensor *t) { (void)t; }

#ifndef CTM_NO_STDIO
static void ctm__print_row(const char *label, const ctm_real *v, size_t n) {
    size_t i;
    double lo = n ? (double)v[0] : 0, hi = lo, sum = 0;
    char text[3][40];
    for (i = 0; i < n; i++) { lo = ctm__dmin(lo, (double)v[i]); hi = ctm__dmax(hi, (double)v[i]); sum += (double)v[i]; }
    ctm__real_text(text[0], sizeof text[0], 5, lo);
    ctm__real_text(text[1], sizeof text[1], 5, n ? sum / (double)n : 0);
    ctm__real_text(text[2], sizeof text[2], 5, hi);
    printf("  %-5s min %s  mean %s  max %s :", label, text[0], text[1], text[2]);
    for (i = 0; i < n && i < 8; i++) {
        ctm__real_text(text[0], sizeof text[0], 5, (double)v[i]);
        printf(" %s", text[0]);
    }
    printf(n > 8 ? " ...\n" : "\n");
}

CTM__DEF void ctm_print(const ctm_tensor *x) {
    char shape[48];
    ctm_shape_text(x, shape, sizeof shape);
    printf("%s %s %s (#%d)\n", x->name, shape, x->op, x->id);
    ctm__print_row("data", x->data, x->len);
    if (x->grad) ctm__print_row("grad", x->grad, x->len);
}

static double ctm__rms(const ctm_real *v, size_t n) {
    double sum = 0;
    size_t i;
    for (i = 0; i < n; i++) sum += (double)v[i] * (double)v[i];
    return n ? sqrt(sum / (double)n) : 0;
}

CTM__DEF void ctm_tape_dump(const ctm_tape *tp) {
    const ctm_tensor *x;
    printf("   #  name                     op             shape         rms data     rms grad   from\n");
    for (x = tp->first; x; x = x->next) {
        char shape[48], data[40], grad[40];
        int i;
        ctm_shape_text(x, shape, sizeof shape);
        ctm__real_text(data, sizeof data, 3, ctm__rms(x->data, x->len));
        ctm__real_text(grad, sizeof grad, 3, x->grad ? ctm__rms(x->grad, x->len) : 0.0);
        printf("%4d  %-24s %-14s %-12s %9s    %9s  ", x->id, x->name, x->op, shape, data, grad);
        for (i = 0; i < 8; i++) if (x->src[i]) printf(" %s", x->src[i]->name);
        printf("\n");
    }
}
#endif

// =====================================================================================================================
// CHAPTER 7. THE TAPE: AUTOMATIC DIFFERENTIATION
//
// Training needs the derivative of the loss with respect to every weight. Reverse-mode differentiation gets them all in one walk
// backwards. Every operation computes its result at once and, if an input wants a gradient, appends that result to a list, the tape. A
// result can only be made after its inputs, so the list is in topological order, and the chain rule
//
//        dL/d(input) += (d out/d input)^T dL/d(out)
//
// can be applied by walking the list once from its end: when it is a result's turn, all that were computed from it have already added their
// part to its gradient. There is no sorting, no recursion, and no compiler of graphs.
// =====================================================================================================================

CTM__DEF void ctm_tape_init(ctm_tape *tp, ctm_ctx *ctx, ctm_arena *arena) {
    CTM__REQUIRE(arena && arena->ctx, "ctm_tape_init: its arena needs ctm_arena_init first");
    memset(tp, 0, sizeof *tp);
    tp->ctx = ctx;
    tp->arena = arena;
    tp->start = ctm_arena_mark(arena);
    tp->recording = 1;
    tp->keep_grads = 1;
}

CTM__DEF void ctm_tape_reset(ctm_tape *tp) {
    ctm_arena *a = tp->arena;
    ctm__block *b = a->first;
    while (b && b != tp->start.block) b = b->next;                         // an arena that was freed meanwhile has other blocks
    if ((b || !tp->start.block) && a->used > tp->start.used) ctm_arena_release(a, tp->start);
    tp->first = tp->last = NULL;
    tp->pool = NULL;
    tp->rows.number = NULL;                                                // a jump out of CTM_PANIC may have left it set
    tp->count = 0;
    tp->next_id = 0;
    tp->drops = 0;
}

// A gradient is wanted by a leaf that has a buffer for it, and by every recorded result that depends on such a leaf.
static int ctm__wants(const ctm_tensor *x) { return x && (x->grad || x->wants); }

static void ctm__append(ctm_tape *tp, ctm_tensor *out) {
    out->wants = 1;
    out->prev = tp->last;
    if (tp->last) tp->last->next = out; else tp->first = out;
    tp->last = out;
    tp->count++;
}

CTM__DEF ctm_tensor *ctm_result(ctm_tape *tp, const char *op, int ndim, const int *shape, int n, ctm_tensor *const *src,
                                void (*backward)(ctm_tape *, ctm_tensor *)) {
    ctm_tensor *out = ctm__tensor(tp->arena, op, op, ndim, shape);
    int i, wanted = 0;
    CTM__REQUIRE(n >= 0 && n <= 8, "ctm_result: \"%s\" has %d inputs, but room for 8", op, n);
    out->data = (ctm_real *)ctm_alloc_raw(tp->arena, out->len * sizeof(ctm_real));
    out->id = ++tp->next_id;
    for (i = 0; i < n; i++) {
        out->src[i] = src[i];
        wanted |= ctm__wants(src[i]);
    }
    if (!tp->recording || !wanted) return out;
    if (tp->keep_grads) out->grad = (ctm_real *)ctm_alloc(tp->arena, out->len * sizeof(ctm_real));
    out->backward = backward;
    ctm__append(tp, out);
    return out;
}

static ctm_tensor *ctm__result(ctm_tape *tp, const char *op, int ndim, int d0, int d1, ctm_tensor *a, ctm_tensor *b,
                               ctm_tensor *c, ctm_tensor *d, void (*backward)(ctm_tape *, ctm_tensor *)) {
    ctm_tensor *src[4];
    int shape[2];
    shape[0] = d0; shape[1] = d1;
    src[0] = a; src[1] = b; src[2] = c; src[3] = d;
    return ctm_result(tp, op, ndim, shape, 4, src, backward);
}

// A result of the shape of its first input.
static ctm_tensor *ctm__result_like(ctm_tape *tp, const char *op, ctm_tensor *a, ctm_tensor *b,
                                    void (*backward)(ctm_tape *, ctm_tensor *)) {
    ctm_tensor *src[2];
    src[0] = a; src[1] = b;
    return ctm_result(tp, op, a->ndim, a->shape, 2, src, backward);
}

#ifndef CTM_NO_IMAGES
static ctm_tensor *ctm__result_image(ctm_tape *tp, const char *op, int B, int H, int W, int C, int n, ctm_tensor *const *src,
                                     void (*backward)(ctm_tape *, ctm_tensor *)) {
    int shape[4];
    shape[0] = B; shape[1] = H; shape[2] = W; shape[3] = C;
    return ctm_result(tp, op, 4, shape, n, src, backward);
}
#endif

// A result's gradient is needed from the moment something is first added to it until its own turn has passed, which in a U-Net is a
// small part of the walk. So buffers for gradients come from a pool and go back to it, unless the tape keeps gradients.
typedef struct ctm__buffer {
    ctm_real *data;
    size_t    len;
    struct ctm__buffer *next;
} ctm__buffer;

static ctm_real *ctm__pool_take(ctm_tape *tp, size_t len) {
    ctm__buffer **link;
    for (link = &tp->pool; *link; link = &(*link)->next)
        if ((*link)->len >= len && (*link)->len <= len + len / 4) {
            ctm_real *data = (*link)->data;
            *link = (*link)->next;
            return data;
        }
    return (ctm_real *)ctm_alloc_raw(tp->arena, len * sizeof(ctm_real));
}

static void ctm__pool_give(ctm_tape *tp, ctm_real *data, size_t len) {
    ctm__buffer *b = (ctm__buffer *)ctm_alloc_raw(tp->arena, sizeof *b);
    b->data = data;
    b->len = len;
    b->next = tp->pool;
    tp->pool = b;
}

// x's gradient, for an operation that can either set it or add to it. *add is 0 if nothing has been added yet; the buffer then holds
// arbitrary numbers. NULL: none is wanted. Call it before you mark the arena, because releasing the mark would free a new buffer.
static ctm_real *ctm__grad_first(ctm_tape *tp, ctm_tensor *x, int *add) {
    *add = 1;
    if (!x) return NULL;
    if (x->grad || !x->wants) return x->grad;
    x->grad = ctm__pool_take(tp, x->len);
    *add = 0;
    return x->grad;
}

// x's gradient, for an operation that adds to it.
CTM__DEF ctm_real *ctm_grad(ctm_tape *tp, ctm_tensor *x) {
    int add;
    ctm_real *grad = ctm__grad_first(tp, x, &add);
    if (grad && !add) memset(grad, 0, x->len * sizeof(ctm_real));
    return grad;
}

CTM__DEF ctm_tensor *ctm_done(ctm_tensor *out) {
#ifdef CTM_DEBUG
    size_t where;
    CTM__REQUIRE(!ctm_first_nonfinite(out, &where), "%s: entry %lu of the result \"%s\" (#%d) is not finite", out->op,
                 (unsigned long)where, out->name, out->id);
#endif
    ctm_on_record(out);
    return out;
}

CTM__DEF void ctm_backward_seeded(ctm_tape *tp, ctm_tensor *y) {
    ctm_tensor *x;
    CTM__REQUIRE(y->grad != NULL, "ctm_backward: \"%s\" depends on nothing that wants a gradient", y->name);
    for (x = y; x; x = x->prev) {
        if (!x->grad) continue;                                  // nothing that reaches y came from here
        ctm_on_backward(x);
        if (!x->backward) continue;                              // a leaf has nothing behind it
        x->backward(tp, x);
        if (tp->keep_grads) continue;
        ctm__pool_give(tp, x->grad, x->len);
        x->grad = NULL;
    }
}

CTM__DEF void ctm_backward(ctm_tape *tp, ctm_tensor *L) {
    ctm_real *grad;
    CTM__SHAPES(L->len == 1, "ctm_backward", "a loss must be a scalar", L, NULL);
    grad = ctm_grad(tp, L);
    CTM__REQUIRE(grad != NULL,
                 "ctm_backward: \"%s\" depends on nothing that wants a gradient (leaves get theirs before the first operation)", L->name);
    grad[0] += 1;
    ctm_backward_seeded(tp, L);
}

// What row i is called in the whole batch.
static uint64_t ctm__row_number(const ctm_rows *rows, int i) { return rows->first + (uint64_t)(rows->number ? rows->number[i] : i); }

CTM__DEF ctm_rows ctm_pick_rows(ctm_tape *tp, const int *index, int n) {
    ctm_rows all = tp->rows;
    int *number = (int *)ctm_alloc_raw(tp->arena, 2 * ((size_t)n + 1) * sizeof(int)), *label = number + n, i;
    for (i = 0; i < n; i++) {
        number[i] = all.number ? all.number[index[i]] : index[i];
        if (all.label) label[i] = all.label[index[i]];
    }
    tp->rows.number = number;
    if (all.label) tp->rows.label = label;
    return all;
}

CTM__DEF void ctm_tape_zero_grads(ctm_tape *tp) {
    ctm_tensor *x;
    for (x = tp->first; x; x = x->next) if (x->grad) memset(x->grad, 0, x->len * sizeof(ctm_real));
}

// L for entry i of x moved by `by`, unrecorded; *at is where the entry then was, which is rounded.
static double ctm__moved(ctm_tape *tp, ctm_tensor *(*build)(void *, ctm_tape *, ctm_tensor *), void *user, ctm_tensor *x, size_t i,
                         double by, double *at) {
    ctm_real was = x->data[i];
    ctm_mark m = ctm_arena_mark(tp->arena);
    double L;
    x->data[i] = (ctm_real)((double)was + by);
    *at = (double)x->data[i];
    L = (double)build(user, tp, x)->data[0];
    x->data[i] = was;
    ctm_arena_release(tp->arena, m);
    return L;
}

CTM__DEF double ctm_gradcheck(ctm_tape *tp, ctm_tensor *(*build)(void *user, ctm_tape *own, ctm_tensor *x), void *user,
                              ctm_tensor *x, double h) {
    ctm_mark m = ctm_arena_mark(tp->arena);
    ctm_tape own;
    double worst = 0, largest = 0;
    size_t i;
    CTM__REQUIRE(x->grad != NULL, "ctm_gradcheck: the leaf \"%s\" has no gradient: ctm_wants_grad gives it one", x->name);
    ctm_tape_init(&own, tp->ctx, tp->arena);                   // a tape of its own: what tp holds stays out of it
    memset(x->grad, 0, x->len * sizeof(ctm_real));
    ctm_backward(&own, build(user, &own, x));
    ctm_arena_release(tp->arena, m);
    own.recording = 0;
    for (i = 0; i < x->len; i++) {
        double right, left, up = ctm__moved(&own, build, user, x, i, h, &right), down = ctm__moved(&own, build, user, x, i, -h, &left);
        double slope = (up - down) / (right - left), grad = (double)x->grad[i];
        if (!ctm_is_finite(slope - grad)) { worst = 1e30; largest = 1; break; }
        worst = ctm__dmax(worst, fabs(slope - grad));
        largest = ctm__dmax(largest, ctm__dmax(fabs(slope), fabs(grad)));
    }
    return largest > 0 ? worst / largest : 1;
}

// ---- The fast loops that the operations call: matrix products, convolutions, rows of numbers. Chapter 22, the engine room, has them.
// Every function of ctm__kernels exists once for each instruction set, and ctm_init chooses the set.

#ifndef CTM_NO_IMAGES
// A convolution as the kernels see it. The sums go to out as  alpha·(sum + b[o] + shift[n,o] + res), or are added to it.
typedef struct ctm__conv {
    int B, H, W, I, O, k;              // x [B,H,W,I], out [B,H,W,O], window k x k
    const ctm_real *x, *w;             // w [k,k,I,O]
    ctm_real       *out;
    const ctm_real *b, *shift, *res;   // [O], [B,O], [B,H,W,O], each may be NULL
    ctm_real        alpha;
    int             add;
    int             turned;            // use w turned round and transposed: I and O are then w's O and I
    ctm_real       *packed;            // the weights as panels, or Winograd's U as panels
    const ctm_real *zero;              // I zeros: what lies outside the image
    const ctm_real *dout;              // for the weight gradient dw [k,k,I,O] of dout [B,H,W,O]
    ctm_real       *dw, *du;           // du: Winograd's gradient of U, one part for each piece of work
    int             tiles;             // Winograd: 2x2 tiles in all, and in one piece of work
    int             tiles_each;
} ctm__conv;
#endif

typedef struct ctm__kernels {
    int lanes, panel;                                            // numbers in a vector; columns of a full tile
    int (*panel_at)(int N, int p, int *first);
    void (*gemm)(int M, int N, int K, const ctm_real *A, ptrdiff_t a_row, ptrdiff_t a_step, const ctm_real *B, ptrdiff_t b_step,
                 ctm_real *C, ptrdiff_t c_row, const ctm_real *bias, int add);
    void (*exp_rows)(size_t n, const ctm_real *x, ctm_real *y);
    void (*log_rows)(size_t n, const ctm_real *x, ctm_real *y);
    void (*sincos_rows)(size_t n, const ctm_real *x, ctm_real *s, ctm_real *c);
    void (*silu)(size_t n, const ctm_real *x, ctm_real *out, ctm_real *sig);
    void (*silu_backward)(size_t n, const ctm_real *sig, const ctm_real *out, const ctm_real *dout, ctm_real *dx);
    void (*film)(size_t n, const ctm_real *h, const ctm_real *scale, const ctm_real *shift, ctm_real *out, ctm_real *sig);
    void (*film_backward)(size_t n, const ctm_real *h, const ctm_real *scale, const ctm_real *out, const ctm_real *sig,
                          const ctm_real *dout, ctm_real *dh, ctm_real *dscale, ctm_real *dshift);
    void (*adam)(size_t n, ctm_real *theta, const ctm_real *g, ctm_real *m, ctm_real *v, double b1, double b2,
                 double rate, double root, double eps, int adaptive);
    void (*ema)(size_t n, ctm_real *ema, const ctm_real *theta, double rate);
    void (*axpy)(size_t n, double c, const ctm_real *x, ctm_real *y);
    double (*sumsq)(size_t n, const ctm_real *x);
    void (*mixture)(int n, int dim, int K, const ctm_real *mean, const ctm_real *log_w, double c2, const ctm_real *x,
                    const ctm_real *t, ctm_real *D, ctm_real *scratch);
    void (*scaled)(size_t n, double c, const ctm_real *x, ctm_real *y, int add);
#ifndef CTM_NO_IMAGES
    void (*pack)(const ctm__conv *g, int row0, int row1);
    void (*conv_panel)(const ctm__conv *g, int panel, int p0, int p1);
    void (*conv_weights)(const ctm__conv *g, int i0, int panel, ctm_real *scratch);
    void (*wino_filters)(const ctm__conv *g, int row0, int row1);
    void (*wino_tiles)(const ctm__conv *g, int t0, int tn, ctm_real *scratch);
    void (*wino_weights)(const ctm__conv *g, int i0, int o0, int t0, int t1, ctm_real *du, ctm_real *scratch);
    void (*wino_weights_end)(const ctm__conv *g, int i0, int o0, int row0, int row1, int parts, const ctm_real *du, size_t part);
    void (*channel_sums)(size_t P, size_t C, const ctm_real *x, const ctm_real *from, ctm_real *sum, ctm_real *sumsq);
    void (*norm)(size_t P, size_t C, const ctm_real *x, const ctm_real *mean, const ctm_real *a, const ctm_real *beta,
                 int silu, ctm_real *out);
    void (*norm_sums)(size_t P, size_t C, const ctm_real *x, const ctm_real *dout, const ctm_real *mean, const ctm_real *a,
                      const ctm_real *beta, int silu, ctm_real *s1, ctm_real *s2);
    void (*norm_backward)(size_t P, size_t C, const ctm_real *x, const ctm_real *dout, const ctm_real *mean, const ctm_real *a,
                          const ctm_real *beta, int silu, const ctm_real *k1, const ctm_real *k2, ctm_real *dx, int add);
    void (*softmax)(int n, double scale, ctm_real *row);
    void (*softmax_backward)(int n, double scale, const ctm_real *p, ctm_real *dp);
    void (*four)(size_t n, double c, const ctm_real *p, const ctm_real *q, const ctm_real *r, const ctm_real *s, ctm_real *y, int add);
#endif
} ctm__kernels;

#ifndef CTM_NO_IMAGES
static void ctm__conv_run(ctm_arena *a, const ctm__conv *conv);             // out = alpha·(x * w + ...)
static void ctm__conv_weights_run(ctm_arena *a, const ctm__conv *conv);     // dw += alpha·(gradient of x * w with respect to w)
#endif

// =====================================================================================================================
// CHAPTER 8. OPERATIONS
//
// Every operation has a card with both formulas, a backward function and, below it, the forward function that installs it. dX always
// means dL/dX. Gradients are added, as a tensor may be used twice. The first addition to a large gradient overwrites it, which saves
// filling it with zeros (ctm__grad_first).
//
// An operation of your own has three parts, in any file: ctm_result with its inputs and its backward function, a loop that fills in
// data, and ctm_done. (ctm__result_like and its relatives are ctm_result for common shapes.)
//
//        static void cube_backward(ctm_tape *tp, ctm_tensor *out) {                  // forward was:  out[i] = a[i]³
//            ctm_tensor *a = out->src[0];
//            ctm_real *da = ctm_grad(tp, a);
//            for (size_t i = 0; i < out->len; i++) da[i] += 3 * a->data[i] * a->data[i] * out->grad[i];
//        }
//        ctm_tensor *cube(ctm_tape *tp, ctm_tensor *a) {
//            ctm_tensor *out = ctm_result(tp, "cube", a->ndim, a->shape, 1, &a, cube_backward);
//            for (size_t i = 0; i < out->len; i++) out->data[i] = a->data[i] * a->data[i] * a->data[i];
//            return ctm_done(out);
//        }
//
// In the backward function ctm_grad is NULL for an input that wants no gradient. That cannot happen to the only input of an operation,
// which is then not recorded; with two inputs test both, as ctm__add_backward does. ctm_gradcheck tells whether a backward function is
// right. What the backward function needs from the forward pass may be kept in out->saved (ctm_alloc of tp->arena), out->iarg, out->arg.
// =====================================================================================================================

// op: add        out = a + b                        same shapes
// Backward       da += dout;  db += dout            Saves nothing    Test  op_add
static void ctm__add_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm_real *da = ctm_grad(tp, out->src[0]), *db = ctm_grad(tp, out->src[1]);
    size_t i;
    if (da) for (i = 0; i < out->len; i++) da[i] += out->grad[i];
    if (db) for (i = 0; i < out->len; i++) db[i] += out->grad[i];
}
CTM__DEF ctm_tensor *ctm_add(ctm_tape *tp, ctm_tensor *a, ctm_tensor *b) {
    ctm_tensor *out;
    size_t i;
    CTM__SHAPES(ctm__same_shape(a, b), "ctm_add", "both must have the same shape", a, b);
    out = ctm__result_like(tp, "add", a, b, ctm__add_backward);
    for (i = 0; i < out->len; i++) out->data[i] = a->data[i] + b->data[i];
    return ctm_done(out);
}

// op: sub        out = a - b                        same shapes
// Backward       da += dout;  db -= dout            Saves nothing    Test  op_sub
static void ctm__sub_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm_real *da = ctm_grad(tp, out->src[0]), *db = ctm_grad(tp, out->src[1]);
    size_t i;
    if (da) for (i = 0; i < out->len; i++) da[i] += out->grad[i];
    if (db) for (i = 0; i < out->len; i++) db[i] -= out->grad[i];
}
CTM__DEF ctm_tensor *ctm_sub(ctm_tape *tp, ctm_tensor *a, ctm_tensor *b) {
    ctm_tensor *out;
    size_t i;
    CTM__SHAPES(ctm__same_shape(a, b), "ctm_sub", "both must have the same shape", a, b);
    out = ctm__result_like(tp, "sub", a, b, ctm__sub_backward);
    for (i = 0; i < out->len; i++) out->data[i] = a->data[i] - b->data[i];
    return ctm_done(out);
}

// op: mul        out = a·b, entry by entry          same shapes
// Backward       da += b·dout;  db += a·dout        Saves nothing    Test  op_mul
static void ctm__mul_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm_tensor *a = out->src[0], *b = out->src[1];
    ctm_real *da = ctm_grad(tp, a), *db = ctm_grad(tp, b);
    size_t i;
    if (da) for (i = 0; i < out->len; i++) da[i] += b->data[i] * out->grad[i];
    if (db) for (i = 0; i < out->len; i++) db[i] += a->data[i] * out->grad[i];
}
CTM__DEF ctm_tensor *ctm_mul(ctm_tape *tp, ctm_tensor *a, ctm_tensor *b) {
    ctm_tensor *out;
    size_t i;
    CTM__SHAPES(ctm__same_shape(a, b), "ctm_mul", "both must have the same shape", a, b);
    out = ctm__result_like(tp, "mul", a, b, ctm__mul_backward);
    for (i = 0; i < out->len; i++) out->data[i] = a->data[i] * b->data[i];
    return ctm_done(out);
}

// op: scale      out = c·a                          c a number
// Backward       da += c·dout                       Saves nothing    Test  op_scale
static void ctm__scale_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm_real c = (ctm_real)out->arg[0], *da = ctm_grad(tp, out->src[0]);
    size_t i;
    for (i = 0; i < out->len; i++) da[i] += c * out->grad[i];
}
CTM__DEF ctm_tensor *ctm_scale(ctm_tape *tp, ctm_tensor *a, double c) {
    ctm_tensor *out = ctm__result_like(tp, "scale", a, NULL, ctm__scale_backward);
    size_t i;
    out->arg[0] = c;
    for (i = 0; i < out->len; i++) out->data[i] = (ctm_real)c * a->data[i];
    return ctm_done(out);
}

// op: square     out = a²
// Backward       da += 2·a·dout                     Saves nothing    Test  op_square
static void ctm__square_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm_tensor *a = out->src[0];
    ctm_real *da = ctm_grad(tp, a);
    size_t i;
    for (i = 0; i < out->len; i++) da[i] += 2 * a->data[i] * out->grad[i];
}
CTM__DEF ctm_tensor *ctm_square(ctm_tape *tp, ctm_tensor *a) {
    ctm_tensor *out = ctm__result_like(tp, "square", a, NULL, ctm__square_backward);
    size_t i;
    for (i = 0; i < out->len; i++) out->data[i] = a->data[i] * a->data[i];
    return ctm_done(out);
}

// to[j][i] = from[i][j], in squares that stay in the cache.
static void ctm__transpose(int rows, int columns, const ctm_real *from, ctm_real *to) {
    int i, j, i0, j0;
    for (i0 = 0; i0 < rows; i0 += 16)
        for (j0 = 0; j0 < columns; j0 += 16)
            for (i = i0; i < ctm__imin(i0 + 16, rows); i++)
                for (j = j0; j < ctm__imin(j0 + 16, columns); j++)
                    to[(size_t)j * (size_t)rows + (size_t)i] = from[(size_t)i * (size_t)columns + (size_t)j];
}

// op: linear     out[n,o] = b[o] + sum_i x[n,i]·w[i,o]      x [B,I]  w [I,O]  b [O] or none  out [B,O]
// Backward       dx = dout·w^T;  dw = x^T·dout;  db = sum_n dout[n]         Saves nothing    Test  op_linear
// All three products of the backward pass are the same kernel as the forward one: for dw the strides of x are exchanged; for
// dx something must be transposed, w or else dout and the result, whichever is smaller; for db the left operand is a row of
// ones (both its strides are zero).
static void ctm__linear_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm_tensor *x = out->src[0], *w = out->src[1], *b = out->src[2];
    int B = x->shape[0], I = w->shape[0], O = w->shape[1], i, n;
    ctm_real one = 1, *dx = ctm_grad(tp, x), *dw = ctm_grad(tp, w), *db = ctm_grad(tp, b);
    if (dx && w->len <= (size_t)B * (size_t)(I + O)) {
        ctm_mark m = ctm_arena_mark(tp->arena);
        ctm_real *wt = (ctm_real *)ctm_alloc_raw(tp->arena, w->len * sizeof(ctm_real));
        ctm__transpose(I, O, w->data, wt);
        ctm_gemm(tp->ctx, B, I, O, out->grad, O, 1, wt, I, dx, I, NULL, 1);
        ctm_arena_release(tp->arena, m);
    } else if (dx) {                                             // dx^T = w·dout^T
        ctm_mark m = ctm_arena_mark(tp->arena);
        ctm_real *dout_t = (ctm_real *)ctm_alloc_raw(tp->arena, out->len * sizeof(ctm_real));
        ctm_real *dx_t = (ctm_real *)ctm_alloc_raw(tp->arena, x->len * sizeof(ctm_real));
        ctm__transpose(B, O, out->grad, dout_t);
        ctm_gemm(tp->ctx, I, B, O, w->data, O, 1, dout_t, B, dx_t, B, NULL, 0);
        for (n = 0; n < B; n++) for (i = 0; i < I; i++) dx[n * I + i] += dx_t[i * B + n];
        ctm_arena_release(tp->arena, m);
    }
    if (dw) ctm_gemm(tp->ctx, I, O, B, x->data, 1, I, out->grad, O, dw, O, NULL, 1);
    if (db) ctm_gemm(tp->ctx, 1, O, B, &one, 0, 0, out->grad, O, db, O, NULL, 1);
}
CTM__DEF ctm_tensor *ctm_linear(ctm_tape *tp, ctm_tensor *x, ctm_tensor *w, ctm_tensor *b) {
    ctm_tensor *out;
    CTM__SHAPES(x->ndim == 2 && w->ndim == 2 && x->shape[1] == w->shape[0], "ctm_linear", "x [B,I] needs w [I,O]", x, w);
    if (b) CTM__SHAPES(b->ndim == 1 && b->shape[0] == w->shape[1], "ctm_linear", "w [I,O] needs b [O]", w, b);
    out = ctm__result(tp, "linear", 2, x->shape[0], w->shape[1], x, w, b, NULL, ctm__linear_backward);
    ctm_gemm(tp->ctx, x->shape[0], w->shape[1], w->shape[0], x->data, w->shape[0], 1, w->data, w->shape[1], out->data, w->shape[1],
             b ? b->data : NULL, 0);
    return ctm_done(out);
}

// op: silu       out = x·sig,  sig = 1/(1 + exp(-x))
// Backward       dx += dout·(sig + out·(1 - sig))           Saves sig        Test  op_silu
static void ctm__silu_backward(ctm_tape *tp, ctm_tensor *out) {
    tp->ctx->kernels->silu_backward(out->len, out->saved, out->data, out->grad, ctm_grad(tp, out->src[0]));
}
CTM__DEF ctm_tensor *ctm_silu(ctm_tape *tp, ctm_tensor *x) {
    ctm_tensor *out = ctm__result_like(tp, "silu", x, NULL, ctm__silu_backward);
    if (out->wants) out->saved = (ctm_real *)ctm_alloc_raw(tp->arena, out->len * sizeof(ctm_real));
    tp->ctx->kernels->silu(x->len, x->data, out->data, out->saved);
    return ctm_done(out);
}

// op: film_silu  out = silu(v),  v = (1 + scale)·h + shift  h [B,H];  scale, shift: H columns each of film [U,F], from `at`
// Backward       dv = dout·silu'(v);  dh += (1 + scale)·dv;  dscale += h·dv;  dshift += dv   Saves sig(v)   Test  op_film_silu
static void ctm__film_silu_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm_tensor *h = out->src[0], *film = out->src[1];
    ctm_real *dh = ctm_grad(tp, h), *dfilm = ctm_grad(tp, film);
    int B = h->shape[0], H = h->shape[1], F = film->shape[1], n;
    for (n = 0; n < B; n++) {
        size_t f = (size_t)(out->index ? out->index[n] : n) * (size_t)F + (size_t)out->iarg[0], r = (size_t)n * (size_t)H;
        tp->ctx->kernels->film_backward((size_t)H, h->data + r, film->data + f, out->data + r, out->saved + r, out->grad + r,
                                        dh ? dh + r : NULL, dfilm ? dfilm + f : NULL, dfilm ? dfilm + f + H : NULL);
    }
}
CTM__DEF ctm_tensor *ctm_film_silu(ctm_tape *tp, ctm_tensor *h, ctm_tensor *film, int at, const int *row) {
    int B = h->shape[0], H = h->shape[1], F = film->shape[1], n;
    ctm_tensor *out;
    CTM__SHAPES(h->ndim == 2 && film->ndim == 2 && (row || film->shape[0] == B) && at >= 0 && at + 2 * H <= F, "ctm_film_silu",
                "h [B,H] needs film [B,F] with 2H columns from `at`", h, film);
    out = ctm__result(tp, "film_silu", 2, B, H, h, film, NULL, NULL, ctm__film_silu_backward);
    out->iarg[0] = at;
    out->index = row;
    if (out->wants) out->saved = (ctm_real *)ctm_alloc_raw(tp->arena, out->len * sizeof(ctm_real));
    for (n = 0; n < B; n++) {
        size_t f = (size_t)(row ? row[n] : n) * (size_t)F + (size_t)at, r = (size_t)n * (size_t)H;
        CTM__REQUIRE(!row || (row[n] >= 0 && row[n] < film->shape[0]), "ctm_film_silu: \"%s\" has no row %d", film->name, row[n]);
        tp->ctx->kernels->film((size_t)H, h->data + r, film->data + f, film->data + f + H, out->data + r,
                               out->saved ? out->saved + r : NULL);
    }
    return ctm_done(out);
}

// op: concat     out = [a | b] along the last dimension      a [..,P]  b [..,Q]  out [..,P+Q]
// Backward       da += left part of dout;  db += right part of dout         Saves nothing    Test  op_concat
typedef struct ctm__concat_job { ctm_real *a, *b, *both; size_t P, Q, rows; int split, add_a, add_b; } ctm__concat_job;
enum { CTM__ROWS = 256 };      // rows (of images: pixels) in one piece of work

static void ctm__part_from(const ctm_real *from, ctm_real *to, size_t n, int add) {
    size_t i;
    if (!add) memcpy(to, from, n * sizeof *to);
    else for (i = 0; i < n; i++) to[i] += from[i];
}
static void ctm__concat_piece(void *arg, int piece) {
    const ctm__concat_job *j = (const ctm__concat_job *)arg;
    size_t r = (size_t)piece * CTM__ROWS, end = r + CTM__ROWS < j->rows ? r + CTM__ROWS : j->rows;
    for (; r < end; r++) {
        ctm_real *both = j->both + r * (j->P + j->Q);
        if (!j->split) {
            memcpy(both, j->a + r * j->P, j->P * sizeof *both);
            memcpy(both + j->P, j->b + r * j->Q, j->Q * sizeof *both);
        } else {
            if (j->a) ctm__part_from(both, j->a + r * j->P, j->P, j->add_a);
            if (j->b) ctm__part_from(both + j->P, j->b + r * j->Q, j->Q, j->add_b);
        }
    }
}
static int ctm__row_pieces(size_t rows) { return (int)((rows + CTM__ROWS - 1) / CTM__ROWS); }

static void ctm__concat_run(ctm_tape *tp, ctm_tensor *a, ctm_tensor *b, ctm__concat_job *j) {
    j->P = (size_t)a->shape[a->ndim - 1];
    j->Q = (size_t)b->shape[b->ndim - 1];
    j->rows = j->P ? a->len / j->P : 0;
    ctm_parallel_for(tp->ctx, ctm__row_pieces(j->rows), ctm__concat_piece, j);
}
static void ctm__concat_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm__concat_job j;
    j.a = ctm__grad_first(tp, out->src[0], &j.add_a);
    j.b = ctm__grad_first(tp, out->src[1], &j.add_b);
    j.both = out->grad;
    j.split = 1;
    ctm__concat_run(tp, out->src[0], out->src[1], &j);
}
CTM__DEF ctm_tensor *ctm_concat(ctm_tape *tp, ctm_tensor *a, ctm_tensor *b) {
    ctm_tensor *src[2];
    int shape[4], i, last = a->ndim - 1, fits = a->ndim >= 2 && b->ndim == a->ndim;
    ctm_tensor *out;
    ctm__concat_job j;
    for (i = 0; i < last && fits; i++) fits = a->shape[i] == b->shape[i];
    CTM__SHAPES(fits, "ctm_concat", "all dimensions but the last must be equal", a, b);
    memcpy(shape, a->shape, sizeof shape);
    shape[last] += b->shape[last];
    src[0] = a; src[1] = b;
    out = ctm_result(tp, "concat", a->ndim, shape, 2, src, ctm__concat_backward);
    j.a = a->data;
    j.b = b->data;
    j.both = out->data;
    j.split = 0;
    ctm__concat_run(tp, a, b, &j);
    return ctm_done(out);
}

// op: gather_rows   out[i] = x[index[i]]            x [B,D] or [B]  out [n,D] or [n]
// Backward          dx[index[i]] += dout[i]                         Saves nothing (keeps the pointer)   Test  op_gather_rows
static void ctm__gather_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm_tensor *x = out->src[0];
    ctm_real *dx = ctm_grad(tp, x);
    size_t D = ctm__row_len(x), d;
    int i;
    for (i = 0; i < out->shape[0]; i++)
        for (d = 0; d < D; d++) dx[(size_t)out->index[i] * D + d] += out->grad[(size_t)i * D + d];
}
CTM__DEF ctm_tensor *ctm_gather_rows(ctm_tape *tp, ctm_tensor *x, const int *index, int n) {
    ctm_tensor *out;
    size_t D = ctm__row_len(x);
    int i;
    CTM__SHAPES(x->ndim == 1 || x->ndim == 2, "ctm_gather_rows", "x must be [B] or [B,D]", x, NULL);
    out = ctm__result(tp, "gather_rows", x->ndim, n, x->shape[1], x, NULL, NULL, NULL, ctm__gather_backward);
    out->index = index;
    for (i = 0; i < n; i++) {
        CTM__REQUIRE(index[i] >= 0 && index[i] < x->shape[0], "ctm_gather_rows: \"%s\" has no row %d", x->name, index[i]);
        memcpy(out->data + (size_t)i * D, x->data + (size_t)index[i] * D, D * sizeof(ctm_real));
    }
    return ctm_done(out);
}

// op: scatter_rows  out = x, but out[index[i]] = y[i]               x, out [B,D]  y [n,D]; no index twice
// Backward          dy[i] += dout[index[i]];  dx += dout elsewhere  Saves nothing (keeps the pointer)   Test  op_scatter_rows
static void ctm__scatter_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm_tensor *x = out->src[0], *y = out->src[1];
    ctm_real *dx = ctm_grad(tp, x), *dy = ctm_grad(tp, y);
    size_t D = ctm__row_len(x), d;
    int i;
    if (dx) for (d = 0; d < out->len; d++) dx[d] += out->grad[d];
    for (i = 0; i < y->shape[0]; i++) {
        size_t r = (size_t)out->index[i] * D;
        if (dy) for (d = 0; d < D; d++) dy[(size_t)i * D + d] += out->grad[r + d];
        if (dx) for (d = 0; d < D; d++) dx[r + d] -= out->grad[r + d];
    }
}
CTM__DEF ctm_tensor *ctm_scatter_rows(ctm_tape *tp, ctm_tensor *x, ctm_tensor *y, const int *index) {
    ctm_tensor *out;
    size_t D = ctm__row_len(x);
    int i;
    CTM__SHAPES(x->ndim == 2 && y->ndim == 2 && x->shape[1] == y->shape[1], "ctm_scatter_rows", "rows must have equal length", x, y);
    out = ctm__result(tp, "scatter_rows", 2, x->shape[0], x->shape[1], x, y, NULL, NULL, ctm__scatter_backward);
    out->index = index;
    memcpy(out->data, x->data, x->len * sizeof(ctm_real));
    for (i = 0; i < y->shape[0]; i++) {
        CTM__REQUIRE(index[i] >= 0 && index[i] < x->shape[0], "ctm_scatter_rows: \"%s\" has no row %d", x->name, index[i]);
        memcpy(out->data + (size_t)index[i] * D, y->data + (size_t)i * D, D * sizeof(ctm_real));
    }
    return ctm_done(out);
}

// op: mix_rows   out[i] = a[i]·x[i] + b[i]·y[i]     a, b [B] constants   x, y, out [B,D];  without y: out[i] = a[i]·x[i]
// Backward       dx[i] += a[i]·dout[i];  dy[i] += b[i]·dout[i]      Saves nothing    Test  op_mix_rows
static void ctm__mix_rows_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm_tensor *a = out->src[0], *x = out->src[1], *b = out->src[2], *y = out->src[3];
    ctm_real *dx = ctm_grad(tp, x), *dy = ctm_grad(tp, y);
    size_t D = ctm__row_len(out), i;
    if (dx) for (i = 0; i < out->len; i++) dx[i] += a->data[i / D] * out->grad[i];
    if (dy) for (i = 0; i < out->len; i++) dy[i] += b->data[i / D] * out->grad[i];
}
CTM__DEF ctm_tensor *ctm_mix_rows(ctm_tape *tp, ctm_tensor *a, ctm_tensor *x, ctm_tensor *b, ctm_tensor *y) {
    ctm_tensor *out;
    size_t D = ctm__row_len(x), i;
    CTM__SHAPES(a->ndim == 1 && x->ndim == 2 && a->shape[0] == x->shape[0], "ctm_mix_rows", "a [B] needs x [B,D]", a, x);
    CTM__REQUIRE(!ctm__wants(a) && !ctm__wants(b), "ctm_mix_rows: the coefficients \"%s\" are constants and cannot want a gradient",
                 a->name);
    if (y) CTM__SHAPES(b && b->len == a->len && ctm__same_shape(x, y), "ctm_mix_rows", "x and y need the same shape, b that of a", x, y);
    out = ctm__result(tp, "mix_rows", 2, x->shape[0], x->shape[1], a, x, b, y, ctm__mix_rows_backward);
    if (y) for (i = 0; i < out->len; i++) out->data[i] = a->data[i / D] * x->data[i] + b->data[i / D] * y->data[i];
    else   for (i = 0; i < out->len; i++) out->data[i] = a->data[i / D] * x->data[i];
    return ctm_done(out);
}

// op: time_features   z = ln(t)/4;  out = [z if keep_z | sin(f_k z) | cos(f_k z)],  f_k = f_0·2^k, k < n      t [B]  out [B,2n(+1)]
// Backward            none: nothing differentiates with respect to a noise level      Saves nothing    Test  op_time_features
CTM__DEF ctm_tensor *ctm_time_features(ctm_tape *tp, ctm_tensor *t, int n, double f_0, int keep_z) {
    int B = t->shape[0], W = 2 * n + (keep_z ? 1 : 0), i, k;
    ctm_tensor *out;
    ctm_real *z, *a, *s, *c;
    ctm_mark m;
    CTM__SHAPES(t->ndim == 1 && !ctm__wants(t), "ctm_time_features", "t must be [B] and cannot want a gradient", t, NULL);
    out = ctm__result(tp, "time_features", 2, B, W, NULL, NULL, NULL, NULL, NULL);
    m = ctm_arena_mark(tp->arena);
    z = (ctm_real *)ctm_alloc_raw(tp->arena, (size_t)B * sizeof(ctm_real));
    a = (ctm_real *)ctm_alloc_raw(tp->arena, (size_t)(B * n) * sizeof(ctm_real));
    s = (ctm_real *)ctm_alloc_raw(tp->arena, (size_t)(B * n) * sizeof(ctm_real));
    c = (ctm_real *)ctm_alloc_raw(tp->arena, (size_t)(B * n) * sizeof(ctm_real));
    ctm_log_rows(tp->ctx, (size_t)B, t->data, z);
    for (i = 0; i < B; i++) {
        double f = f_0;
        z[i] *= (ctm_real)0.25;
        for (k = 0; k < n; k++, f *= 2) a[i * n + k] = (ctm_real)f * z[i];
    }
    ctm_sincos_rows(tp->ctx, (size_t)(B * n), a, s, c);
    for (i = 0; i < B; i++) {
        ctm_real *row = out->data + (size_t)i * (size_t)W;
        if (keep_z) *row++ = z[i];
        memcpy(row, s + i * n, (size_t)n * sizeof(ctm_real));
        memcpy(row + n, c + i * n, (size_t)n * sizeof(ctm_real));
    }
    ctm_arena_release(tp->arena, m);
    return ctm_done(out);
}

// op: distance   L2: mean_d (a-b)²   L1: mean_d |a-b|   HUBER: sqrt(sum_d (a-b)² + c²) - c       a, b [B,D]  out [B]
// Backward       da = -db = dout·{2(a-b)/D,  sign(a-b)/D,  (a-b)/(out + c)}     Saves nothing    Test  op_distance
static void ctm__distance_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm_tensor *a = out->src[0], *b = out->src[1];
    ctm_real *da = ctm_grad(tp, a), *db = ctm_grad(tp, b);
    size_t D = ctm__row_len(a), i;
    double c = out->arg[0];
    for (i = 0; i < a->len; i++) {
        ctm_real r = a->data[i] - b->data[i], slope;
        if (out->iarg[0] == CTM_L2)      slope = 2 * r / (ctm_real)D;
        else if (out->iarg[0] == CTM_L1) slope = (ctm_real)((r > 0) - (r < 0)) / (ctm_real)D;
        else                             slope = r / (out->data[i / D] + (ctm_real)c);
        slope *= out->grad[i / D];
        if (da) da[i] += slope;
        if (db) db[i] -= slope;
    }
}
CTM__DEF ctm_tensor *ctm_distance(ctm_tape *tp, ctm_tensor *a, ctm_tensor *b, int kind, double c) {
    size_t D = ctm__row_len(a), d;
    ctm_tensor *out;
    int n;
    CTM__SHAPES(a->ndim == 2 && ctm__same_shape(a, b), "ctm_distance", "both must be [B,D], of equal shape", a, b);
    CTM__REQUIRE(kind == CTM_L2 || kind == CTM_L1 || kind == CTM_HUBER, "ctm_distance: %d is no kind of distance", kind);
    out = ctm__result(tp, "distance", 1, a->shape[0], 0, a, b, NULL, NULL, ctm__distance_backward);
    out->iarg[0] = kind;
    out->arg[0] = c;
    for (n = 0; n < a->shape[0]; n++) {
        const ctm_real *p = a->data + (size_t)n * D, *q = b->data + (size_t)n * D;
        double sum = 0;
        if (kind == CTM_L1) for (d = 0; d < D; d++) sum += fabs((double)(p[d] - q[d]));
        else                for (d = 0; d < D; d++) sum += (double)(p[d] - q[d]) * (double)(p[d] - q[d]);
        if (kind == CTM_HUBER) sum = sum / (sqrt(sum + c * c) + c);     // sqrt(q + c²) - c without cancellation
        else                   sum /= (double)D;
        out->data[n] = (ctm_real)sum;
    }
    return ctm_done(out);
}

// op: relu       out = max(x, 0)
// Backward       dx += dout where x > 0             Saves nothing    Test  op_relu
static void ctm__relu_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm_tensor *x = out->src[0];
    ctm_real *dx = ctm_grad(tp, x);
    size_t i;
    for (i = 0; i < out->len; i++) if (x->data[i] > 0) dx[i] += out->grad[i];
}
CTM__DEF ctm_tensor *ctm_relu(ctm_tape *tp, ctm_tensor *x) {
    ctm_tensor *out = ctm__result_like(tp, "relu", x, NULL, ctm__relu_backward);
    size_t i;
    for (i = 0; i < out->len; i++) out->data[i] = x->data[i] < 0 ? 0 : x->data[i];       // so written, NaN stays NaN
    return ctm_done(out);
}

// op: softplus   out = ln(1 + exp(x)) = max(x,0) + ln(1 + exp(-|x|)), which overflows nowhere
// Backward       dx += dout / (1 + exp(-x))         Saves nothing    Test  op_softplus
static void ctm__softplus_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm_tensor *x = out->src[0];
    ctm_real *dx = ctm_grad(tp, x);
    size_t i;
    for (i = 0; i < out->len; i++) {
        double v = (double)x->data[i], e = exp(-fabs(v));
        dx[i] += out->grad[i] * (ctm_real)((v < 0 ? e : 1) / (1 + e));
    }
}
CTM__DEF ctm_tensor *ctm_softplus(ctm_tape *tp, ctm_tensor *x) {
    ctm_tensor *out = ctm__result_like(tp, "softplus", x, NULL, ctm__softplus_backward);
    size_t i;
    for (i = 0; i < out->len; i++) {
        double v = (double)x->data[i];
        out->data[i] = (ctm_real)((v < 0 ? 0 : v) + log1p(exp(-fabs(v))));
    }
    return ctm_done(out);
}

// op: weighted_mean   out = sum_i w[i]·d[i] / n     d [B]  w [B] constants or none  out []
// Backward            dd[i] += w[i]·dout/n                          Saves nothing    Test  op_weighted_mean
static void ctm__weighted_mean_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm_tensor *d = out->src[0], *w = out->src[1];
    ctm_real *dd = ctm_grad(tp, d);
    size_t i;
    for (i = 0; i < d->len; i++) dd[i] += (w ? w->data[i] : 1) * out->grad[0] / (ctm_real)out->arg[0];
}
CTM__DEF ctm_tensor *ctm_weighted_mean(ctm_tape *tp, ctm_tensor *d, ctm_tensor *w, double n) {
    ctm_tensor *out;
    double sum = 0;
    size_t i;
    if (w) CTM__SHAPES(w->len == d->len && !ctm__wants(w), "ctm_weighted_mean", "the weights are constants, one for each entry", d, w);
    out = ctm__result(tp, "weighted_mean", 0, 0, 0, d, w, NULL, NULL, ctm__weighted_mean_backward);
    out->arg[0] = n;
    for (i = 0; i < d->len; i++) sum += (w ? (double)w->data[i] : 1.0) * (double)d->data[i];
    out->data[0] = (ctm_real)(sum / n);
    return ctm_done(out);
}

// y = c·x, or y += c·x
typedef struct ctm__scaled_job { const ctm__kernels *kernels; double c; const ctm_real *x; ctm_real *y; int add; } ctm__scaled_job;
static void ctm__scaled_stretch(void *arg, size_t at, size_t n) {
    const ctm__scaled_job *j = (const ctm__scaled_job *)arg;
    j->kernels->scaled(n, j->c, j->x + at, j->y + at, j->add);
}
static void ctm__scaled(ctm_ctx *ctx, size_t n, double c, const ctm_real *x, ctm_real *y, int add) {
    ctm__scaled_job j;
    j.kernels = ctx->kernels; j.c = c; j.x = x; j.y = y; j.add = add;
    ctm__in_stretches(ctx, n, ctm__scaled_stretch, &j);
}

// op: reshape    out = the numbers of x under another shape         shares data
// Backward       dx += dout                         Saves nothing    Test  op_reshape
static void ctm__reshape_backward(ctm_tape *tp, ctm_tensor *out) {
    int add;
    ctm_real *dx = ctm__grad_first(tp, out->src[0], &add);
    ctm__scaled(tp->ctx, out->len, 1, out->grad, dx, add);
}
CTM__DEF ctm_tensor *ctm_reshape(ctm_tape *tp, ctm_tensor *x, int ndim, int d0, int d1, int d2, int d3) {
    int shape[4];
    ctm_tensor *out;
    shape[0] = d0; shape[1] = d1; shape[2] = d2; shape[3] = d3;
    out = ctm__tensor(tp->arena, x->name, "reshape", ndim, shape);
    CTM__REQUIRE(out->len == x->len, "ctm_reshape: \"%s\" has %lu numbers, the new shape %lu", x->name, (unsigned long)x->len,
                 (unsigned long)out->len);
    out->data = x->data;
    out->id = ++tp->next_id;
    out->src[0] = x;
    if (tp->recording && ctm__wants(x)) {
        if (tp->keep_grads) out->grad = (ctm_real *)ctm_alloc(tp->arena, out->len * sizeof(ctm_real));
        out->backward = ctm__reshape_backward;
        ctm__append(tp, out);
    }
    return ctm_done(out);
}

#ifndef CTM_NO_IMAGES
// op: down       out[y,x] = mean of the four x[2y..2y+1, 2x..2x+1]        x [B,H,W,C], H and W even   out [B,H/2,W/2,C]
// Backward       each of the four dx += dout/4      Saves nothing    Test  op_down
// op: up         out[2y..2y+1, 2x..2x+1] = x[y,x]                         x [B,H,W,C]   out [B,2H,2W,C]
// Backward       dx += sum of the four dout         Saves nothing    Test  op_up
// (EDM's resampling filter [1,1].) Both are one of two walks over the rows of the small image: gather four into one, or
// spread one over four.
typedef struct ctm__resample_job {
    const ctm__kernels *kernels; int W, C, spread, add; double c; const ctm_real *from; ctm_real *to;
} ctm__resample_job;
static void ctm__resample_piece(void *arg, int row) {
    const ctm__resample_job *j = (const ctm__resample_job *)arg;
    size_t C = (size_t)j->C, W = (size_t)j->W, x, low = (size_t)row * W * C, large = 4 * low;
    for (x = 0; x < W; x++) {
        size_t a = large + 2 * x * C, c = a + 2 * W * C, s = low + x * C;           // upper left and lower left of the four
        if (!j->spread) j->kernels->four(C, j->c, j->from + a, j->from + a + C, j->from + c, j->from + c + C, j->to + s, j->add);
        else {
            j->kernels->scaled(C, j->c, j->from + s, j->to + a, j->add);
            j->kernels->scaled(C, j->c, j->from + s, j->to + a + C, j->add);
            j->kernels->scaled(C, j->c, j->from + s, j->to + c, j->add);
            j->kernels->scaled(C, j->c, j->from + s, j->to + c + C, j->add);
        }
    }
}
// H, W: of the small image
static void ctm__resample(ctm_ctx *ctx, int B, int H, int W, int C, int spread, double c, const ctm_real *from, ctm_real *to, int add) {
    ctm__resample_job j;
    j.kernels = ctx->kernels; j.W = W; j.C = C; j.spread = spread; j.add = add; j.c = c; j.from = from; j.to = to;
    ctm_parallel_for(ctx, B * H, ctm__resample_piece, &j);
}
static void ctm__down_backward(ctm_tape *tp, ctm_tensor *out) {
    int add;
    ctm_real *dx = ctm__grad_first(tp, out->src[0], &add);
    ctm__resample(tp->ctx, out->shape[0], out->shape[1], out->shape[2], out->shape[3], 1, 0.25, out->grad, dx, add);
}
CTM__DEF ctm_tensor *ctm_down(ctm_tape *tp, ctm_tensor *x) {
    ctm_tensor *out;
    CTM__SHAPES(x->ndim == 4 && x->shape[1] % 2 == 0 && x->shape[2] % 2 == 0, "ctm_down", "x must be [B,H,W,C] with even H and W", x, NULL);
    out = ctm__result_image(tp, "down", x->shape[0], x->shape[1] / 2, x->shape[2] / 2, x->shape[3], 1, &x, ctm__down_backward);
    ctm__resample(tp->ctx, out->shape[0], out->shape[1], out->shape[2], out->shape[3], 0, 0.25, x->data, out->data, 0);
    return ctm_done(out);
}
static void ctm__up_backward(ctm_tape *tp, ctm_tensor *out) {
    int add;
    ctm_tensor *x = out->src[0];
    ctm_real *dx = ctm__grad_first(tp, x, &add);
    ctm__resample(tp->ctx, x->shape[0], x->shape[1], x->shape[2], x->shape[3], 0, 1, out->grad, dx, add);
}
CTM__DEF ctm_tensor *ctm_up(ctm_tape *tp, ctm_tensor *x) {
    ctm_tensor *out;
    CTM__SHAPES(x->ndim == 4, "ctm_up", "x must be [B,H,W,C]", x, NULL);
    out = ctm__result_image(tp, "up", x->shape[0], 2 * x->shape[1], 2 * x->shape[2], x->shape[3], 1, &x, ctm__up_backward);
    ctm__resample(tp->ctx, x->shape[0], x->shape[1], x->shape[2], x->shape[3], 1, 1, x->data, out->data, 0);
    return ctm_done(out);
}

// op: fold       out[y,x,(a,b,c)] = x[p·y+a, p·x+b, c]              x [B,H,W,C], p divides H and W    out [B,H/p,W/p,p·p·C]
// Backward       dx += dout, in the places where it came from      Saves nothing    Test  op_fold
// op: unfold     the way back                                       x [B,H,W,p·p·C]   out [B,pH,pW,C]
// Backward       dx += dout folded                                  Saves nothing    Test  op_unfold
// (Also known as space-to-depth: the network sees fewer positions and more numbers at each, and loses none.)
typedef struct ctm__fold_job { int p, W, C, unfold, add; const ctm_real *from; ctm_real *to; } ctm__fold_job;
static void ctm__fold_piece(void *arg, int row) {                     // of the folded image
    const ctm__fold_job *j = (const ctm__fold_job *)arg;
    size_t strip = (size_t)j->p * (size_t)j->C, W = (size_t)j->W, p = (size_t)j->p, a, x;       // p pixels side by side
    for (a = 0; a < p; a++)
        for (x = 0; x < W; x++) {
            size_t folded = (((size_t)row * W + x) * p + a) * strip, whole = (((size_t)row * p + a) * W + x) * strip;
            ctm__part_from(j->from + (j->unfold ? folded : whole), j->to + (j->unfold ? whole : folded), strip, j->add);
        }
}
static void ctm__fold_run(ctm_ctx *ctx, const ctm_tensor *folded, const ctm_tensor *whole, int unfold, const ctm_real *from, ctm_real *to,
                          int add) {
    ctm__fold_job j;
    j.p = whole->shape[1] / folded->shape[1]; j.W = folded->shape[2]; j.C = whole->shape[3];
    j.unfold = unfold; j.add = add; j.from = from; j.to = to;
    ctm_parallel_for(ctx, folded->shape[0] * folded->shape[1], ctm__fold_piece, &j);
}
static void ctm__fold_backward(ctm_tape *tp, ctm_tensor *out) {
    int add;
    ctm_real *dx = ctm__grad_first(tp, out->src[0], &add);
    ctm__fold_run(tp->ctx, out, out->src[0], 1, out->grad, dx, add);
}
CTM__DEF ctm_tensor *ctm_fold(ctm_tape *tp, ctm_tensor *x, int p) {
    ctm_tensor *out;
    CTM__SHAPES(x->ndim == 4 && p > 0 && x->shape[1] % p == 0 && x->shape[2] % p == 0, "ctm_fold",
                "x must be [B,H,W,C], and p divide H and W", x, NULL);
    out = ctm__result_image(tp, "fold", x->shape[0], x->shape[1] / p, x->shape[2] / p, p * p * x->shape[3], 1, &x, ctm__fold_backward);
    ctm__fold_run(tp->ctx, out, x, 0, x->data, out->data, 0);
    return ctm_done(out);
}
static void ctm__unfold_backward(ctm_tape *tp, ctm_tensor *out) {
    int add;
    ctm_real *dx = ctm__grad_first(tp, out->src[0], &add);
    ctm__fold_run(tp->ctx, out->src[0], out, 0, out->grad, dx, add);
}
CTM__DEF ctm_tensor *ctm_unfold(ctm_tape *tp, ctm_tensor *x, int p) {
    ctm_tensor *out;
    CTM__SHAPES(x->ndim == 4 && p > 0 && x->shape[3] % (p * p) == 0, "ctm_unfold", "x must be [B,H,W,C], and p·p divide C", x, NULL);
    out = ctm__result_image(tp, "unfold", x->shape[0], x->shape[1] * p, x->shape[2] * p, x->shape[3] / (p * p), 1, &x,
                            ctm__unfold_backward);
    ctm__fold_run(tp->ctx, x, out, 1, x->data, out->data, 0);
    return ctm_done(out);
}

// op: group_norm   out = f(v),  v = (x - mean)·rstd·gamma[c] + beta[c]   x, out [B,H,W,C]  gamma, beta [C]  f = SiLU or nothing
// Backward         dv = dout·f'(v);  x̂ = (x - mean)·rstd;  dbeta += sum dv;  dgamma += sum dv·x̂
//                  dx += rstd·(gamma·dv - mean of gamma·dv - x̂·mean of gamma·dv·x̂)       Saves mean, rstd   Test  op_group_norm
// mean and rstd = 1/sqrt(variance + eps) are those of a sample's group of C/groups channels over all pixels.
// A sample is one piece of work: its statistics in one sweep over memory, its result in a second, while much of it is still
// in the cache. v and its sigmoid are made anew in the backward pass, from x: cheaper than reading them back.
typedef struct ctm__norm_job {
    const ctm__kernels *kernels;
    size_t P;
    int C, groups, silu, add, again;           // again: the statistics are known
    double eps;
    const ctm_real *x, *gamma, *beta, *dout;
    ctm_real *out, *stats, *dx, *sums;         // stats [B,2,groups]; sums [B,2,C]: every sample's part of dbeta and dgamma
} ctm__norm_job;

// The channel's mean and factor a = rstd·gamma, from the group's.
static void ctm__norm_spread(const ctm__norm_job *j, const ctm_real *stats, ctm_real *mean, ctm_real *a) {
    int each = j->C / j->groups, c;
    for (c = 0; c < j->C; c++) { mean[c] = stats[c / each]; a[c] = stats[j->groups + c / each] * j->gamma[c]; }
}
static void ctm__norm_statistics(const ctm__norm_job *j, const ctm_real *x, ctm_real *stats, ctm_real *sum, ctm_real *sumsq) {
    int each = j->C / j->groups, g, c;                           // x's first pixel shifts the sums: a large mean costs no digits
    double count = (double)j->P * each;
    memset(sum, 0, (size_t)j->C * sizeof *sum);
    memset(sumsq, 0, (size_t)j->C * sizeof *sumsq);
    j->kernels->channel_sums(j->P, (size_t)j->C, x, x, sum, sumsq);
    for (g = 0; g < j->groups; g++) {
        double mean = 0, var = 0;
        for (c = g * each; c < (g + 1) * each; c++) mean += ((double)sum[c] + (double)j->P * (double)x[c]) / count;
        for (c = g * each; c < (g + 1) * each; c++) {
            double d = (double)x[c] - mean;
            var += ((double)sumsq[c] + 2 * d * (double)sum[c] + (double)j->P * d * d) / count;
        }
        stats[g] = (ctm_real)mean;
        stats[j->groups + g] = (ctm_real)(1 / sqrt((var > 0 ? var : 0) + j->eps));
    }
}
static void ctm__norm_piece(void *arg, int n, void *scratch) {
    const ctm__norm_job *j = (const ctm__norm_job *)arg;
    size_t C = (size_t)j->C, at = (size_t)n * j->P * C;
    ctm_real *mean = (ctm_real *)scratch, *a = mean + C, *stats = j->stats + (size_t)n * 2 * (size_t)j->groups;
    if (!j->again) ctm__norm_statistics(j, j->x + at, stats, mean, a);
    ctm__norm_spread(j, stats, mean, a);
    j->kernels->norm(j->P, C, j->x + at, mean, a, j->beta, j->silu, j->out + at);
}
// The two means of the card are sums over pixels of s1[c] = sum dv and s2[c] = sum dv·(x - mean) (norm_sums), weighted by gamma and
// divided by the count: m1 = mean of gamma·dv, m2 = mean of gamma·dv·x̂, as x̂ = (x - mean)·rstd. Then, with a = rstd·gamma,
//        dx = a·dv - k1 - k2·(x - mean),   k1 = rstd·m1,   k2 = rstd²·m2                          (norm_backward)
// and s1 is the sample's part of dbeta, rstd·s2 that of dgamma.
static void ctm__norm_backward_piece(void *arg, int n, void *scratch) {
    const ctm__norm_job *j = (const ctm__norm_job *)arg;
    size_t C = (size_t)j->C, at = (size_t)n * j->P * C;
    ctm_real *mean = (ctm_real *)scratch, *a = mean + C, *k1 = a + C, *k2 = k1 + C, *s1 = j->sums + (size_t)n * 2 * C, *s2 = s1 + C;
    const ctm_real *stats = j->stats + (size_t)n * 2 * (size_t)j->groups;
    int each = j->C / j->groups, g, c;
    double count = (double)j->P * each;
    ctm__norm_spread(j, stats, mean, a);
    j->kernels->norm_sums(j->P, C, j->x + at, j->dout + at, mean, a, j->beta, j->silu, s1, s2);
    for (g = 0; g < j->groups; g++) {
        double rstd = (double)stats[j->groups + g], m1 = 0, m2 = 0;
        for (c = g * each; c < (g + 1) * each; c++) {
            m1 += (double)j->gamma[c] * (double)s1[c] / count;
            m2 += (double)j->gamma[c] * (double)s2[c] * rstd / count;
        }
        for (c = g * each; c < (g + 1) * each; c++) {
            k1[c] = (ctm_real)(rstd * m1);
            k2[c] = (ctm_real)(rstd * rstd * m2);
            s2[c] *= (ctm_real)rstd;
        }
    }
    if (j->dx) j->kernels->norm_backward(j->P, C, j->x + at, j->dout + at, mean, a, j->beta, j->silu, k1, k2, j->dx + at, j->add);
}
static void ctm__norm_of(ctm__norm_job *j, ctm_tape *tp, const ctm_tensor *out, const ctm_tensor *x, const ctm_tensor *gamma,
                         const ctm_tensor *beta) {
    memset(j, 0, sizeof *j);
    j->kernels = tp->ctx->kernels;
    j->P = (size_t)x->shape[1] * (size_t)x->shape[2];
    j->C = x->shape[3];
    j->groups = out->iarg[0];
    j->silu = out->iarg[1];
    j->eps = out->arg[0];
    j->x = x->data;
    j->gamma = gamma->data;
    j->beta = beta->data;
    j->stats = out->saved;
}
// Fills j->out, and j->stats if they are not known.
static void ctm__norm_run(ctm_tape *tp, ctm__norm_job *j, int B) {
    ctm__parallel_scratch(tp->arena, B, 2 * (size_t)j->C * sizeof(ctm_real), ctm__norm_piece, j);
}
static void ctm__norm_back(ctm_tape *tp, ctm__norm_job *j, int B, ctm_real *dgamma, ctm_real *dbeta) {
    ctm_mark m = ctm_arena_mark(tp->arena);
    size_t C = (size_t)j->C;
    int n;
    j->sums = (ctm_real *)ctm_alloc(tp->arena, (size_t)B * 2 * C * sizeof(ctm_real));
    ctm__parallel_scratch(tp->arena, B, 4 * C * sizeof(ctm_real), ctm__norm_backward_piece, j);
    for (n = 0; n < B; n++) {
        if (dbeta)  j->kernels->axpy(C, 1, j->sums + (size_t)n * 2 * C, dbeta);
        if (dgamma) j->kernels->axpy(C, 1, j->sums + (size_t)n * 2 * C + C, dgamma);
    }
    ctm_arena_release(tp->arena, m);
}
static void ctm__norm_check(const ctm_tensor *x, const ctm_tensor *gamma, const ctm_tensor *beta, int groups) {
    CTM__SHAPES(x->ndim == 4 && gamma->ndim == 1 && gamma->shape[0] == x->shape[3], "ctm_group_norm",
                "x [B,H,W,C] needs gamma [C]", x, gamma);
    CTM__SHAPES(beta->ndim == 1 && beta->len == gamma->len, "ctm_group_norm", "gamma [C] needs beta [C]", gamma, beta);
    CTM__REQUIRE(groups > 0 && x->shape[3] % groups == 0, "ctm_group_norm: %d groups do not divide the %d channels of \"%s\"",
                 groups, x->shape[3], x->name);
}
static void ctm__norm_settings(ctm_tape *tp, ctm_tensor *out, int B, int groups, double eps, int silu) {
    out->iarg[0] = groups;
    out->iarg[1] = silu;
    out->arg[0] = eps;
    out->saved = (ctm_real *)ctm_alloc_raw(tp->arena, (size_t)B * 2 * (size_t)groups * sizeof(ctm_real));
}
static void ctm__group_norm_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm_tensor *x = out->src[0];
    ctm_real *dgamma = ctm_grad(tp, out->src[1]), *dbeta = ctm_grad(tp, out->src[2]);
    ctm__norm_job j;
    ctm__norm_of(&j, tp, out, x, out->src[1], out->src[2]);
    j.dx = ctm__grad_first(tp, x, &j.add);
    j.dout = out->grad;
    ctm__norm_back(tp, &j, x->shape[0], dgamma, dbeta);
}
CTM__DEF ctm_tensor *ctm_group_norm(ctm_tape *tp, ctm_tensor *x, ctm_tensor *gamma, ctm_tensor *beta, int groups, double eps, int silu) {
    ctm_tensor *out, *src[3];
    ctm__norm_job j;
    ctm__norm_check(x, gamma, beta, groups);
    src[0] = x; src[1] = gamma; src[2] = beta;
    out = ctm_result(tp, silu ? "group_norm_silu" : "group_norm", 4, x->shape, 3, src, ctm__group_norm_backward);
    ctm__norm_settings(tp, out, x->shape[0], groups, eps, silu);
    ctm__norm_of(&j, tp, out, x, gamma, beta);
    j.out = out->data;
    ctm__norm_run(tp, &j, x->shape[0]);
    return ctm_done(out);
}

// op: conv       out = alpha·(x * w + b[o] + shift[n,o] + res)      x [B,H,W,I]  w [k,k,I,O], k = 1 or 3  out, res [B,H,W,O]
// Backward       dx += alpha·(dout * w turned round and transposed);  dw += alpha·sum over pixels of x[pixel + tap]·dout[pixel]
//                dres += alpha·dout;  dshift[n] += alpha·sum over n's pixels of dout;  db += the sum of these
//                                                   Saves nothing (reads x and w again)   Test  op_conv
// What a block of the network adds to a convolution (bias, time embedding, the skip and its factor) is added while the sums
// are still in registers: a pass over memory saved for each.
static void ctm__conv_of(ctm__conv *g, const ctm_tensor *x, const ctm_tensor *w) {
    memset(g, 0, sizeof *g);
    g->B = x->shape[0]; g->H = x->shape[1]; g->W = x->shape[2];
    g->I = w->shape[2]; g->O = w->shape[3]; g->k = w->shape[0];
    g->x = x->data;
    g->w = w->data;
}

// db, dshift and dres in one sweep over dout: for each sample, sums over its pixels and alpha·dout, some pixels at a time.
typedef struct ctm__sums_job {
    const ctm__kernels *kernels; size_t P; int C, add; double alpha; const ctm_real *dout; ctm_real *sum, *dres;
} ctm__sums_job;
static void ctm__sums_piece(void *arg, int n) {
    const ctm__sums_job *j = (const ctm__sums_job *)arg;
    size_t C = (size_t)j->C, p, step = 64;
    for (p = 0; p < j->P; p += step) {
        size_t count = j->P - p < step ? j->P - p : step, at = ((size_t)n * j->P + p) * C;
        if (j->sum)  j->kernels->channel_sums(count, C, j->dout + at, NULL, j->sum + (size_t)n * C, NULL);
        if (j->dres) j->kernels->scaled(count * C, j->alpha, j->dout + at, j->dres + at, j->add);
    }
}
static void ctm__conv_rest_backward(ctm_tape *tp, const ctm_tensor *out, ctm_real *db, ctm_real *dshift, ctm_real *dres,
                                    int add, double alpha) {
    ctm_mark m = ctm_arena_mark(tp->arena);
    int B = out->shape[0], n;
    size_t O = (size_t)out->shape[3];
    ctm__sums_job j;
    j.kernels = tp->ctx->kernels;
    j.P = (size_t)out->shape[1] * (size_t)out->shape[2];
    j.C = out->shape[3];
    j.add = add;
    j.alpha = alpha;
    j.dout = out->grad;
    j.dres = dres;
    j.sum = db || dshift ? (ctm_real *)ctm_alloc(tp->arena, (size_t)B * O * sizeof(ctm_real)) : NULL;
    ctm_parallel_for(tp->ctx, B, ctm__sums_piece, &j);
    if (dshift) j.kernels->axpy((size_t)B * O, alpha, j.sum, dshift);
    if (db) for (n = 0; n < B; n++) j.kernels->axpy(O, alpha, j.sum + (size_t)n * O, db);
    ctm_arena_release(tp->arena, m);
}

// The gradients of a convolution's inputs but x; to be fetched before any scratch is marked.
typedef struct ctm__conv_grads { ctm_real *dw, *db, *dshift, *dres; int add_res; } ctm__conv_grads;
static ctm__conv_grads ctm__conv_wanted(ctm_tape *tp, ctm_tensor *out) {
    ctm__conv_grads d;
    d.dres = ctm__grad_first(tp, out->src[4], &d.add_res);
    d.dshift = ctm_grad(tp, out->src[3]);
    d.db = ctm_grad(tp, out->src[2]);
    d.dw = ctm_grad(tp, out->src[1]);
    return d;
}
// x: what was convolved; dx: its gradient, set or added, or NULL. dx may be x itself, as x is not read any more when dx is written.
static void ctm__conv_back(ctm_tape *tp, ctm_tensor *out, const ctm__conv_grads *d, ctm__conv *g, ctm_real *dx, int add) {
    double alpha = out->arg[1];
    if (d->dres || d->db || d->dshift) ctm__conv_rest_backward(tp, out, d->db, d->dshift, d->dres, d->add_res, alpha);
    g->alpha = (ctm_real)alpha;
    if (d->dw) {
        g->dout = out->grad;
        g->dw = d->dw;
        ctm__conv_weights_run(tp->arena, g);
    }
    if (dx) {
        int I = g->I;
        g->I = g->O;
        g->O = I;
        g->turned = 1;
        g->x = out->grad;
        g->out = dx;
        g->add = add;
        ctm__conv_run(tp->arena, g);
    }
}
static void ctm__conv_forward(ctm_tape *tp, ctm_tensor *out, ctm__conv *g) {
    g->out = out->data;
    g->b = out->src[2] ? out->src[2]->data : NULL;
    g->shift = out->src[3] ? out->src[3]->data : NULL;
    g->res = out->src[4] ? out->src[4]->data : NULL;
    g->alpha = (ctm_real)out->arg[1];
    ctm__conv_run(tp->arena, g);
}
static void ctm__conv_check(const ctm_tensor *x, const ctm_tensor *w, const ctm_tensor *b, const ctm_tensor *shift, const ctm_tensor *res) {
    CTM__SHAPES(x->ndim == 4 && w->ndim == 4 && x->shape[3] == w->shape[2] && w->shape[0] == w->shape[1] &&
                (w->shape[0] == 1 || w->shape[0] == 3),
                "ctm_conv", "x [B,H,W,I] needs w [k,k,I,O] with k = 1 or 3", x, w);
    CTM__SHAPES(w->shape[2] > 0 && (double)x->shape[0] * x->shape[1] * x->shape[2] < 1 << 30, "ctm_conv",
                "there must be channels, and fewer than 2^30 pixels", x, w);
    if (b) CTM__SHAPES(b->ndim == 1 && b->shape[0] == w->shape[3], "ctm_conv", "w [k,k,I,O] needs b [O]", w, b);
    if (shift) CTM__SHAPES(shift->ndim == 2 && shift->shape[0] == x->shape[0] && shift->shape[1] == w->shape[3], "ctm_conv",
                           "shift must be [B,O]", x, shift);
    if (res) CTM__SHAPES(res->ndim == 4 && res->shape[0] == x->shape[0] && res->shape[1] == x->shape[1] && res->shape[2] == x->shape[2] &&
                         res->shape[3] == w->shape[3], "ctm_conv", "res must be [B,H,W,O]", x, res);
}

static void ctm__conv_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm_tensor *x = out->src[0];
    ctm__conv_grads d = ctm__conv_wanted(tp, out);
    int add;
    ctm_real *dx = ctm__grad_first(tp, x, &add);
    ctm__conv g;
    ctm__conv_of(&g, x, out->src[1]);
    ctm__conv_back(tp, out, &d, &g, dx, add);
}
CTM__DEF ctm_tensor *ctm_conv(ctm_tape *tp, ctm_tensor *x, ctm_tensor *w, ctm_tensor *b, ctm_tensor *shift, ctm_tensor *res, double alpha) {
    ctm_tensor *out, *src[5];
    ctm__conv g;
    ctm__conv_check(x, w, b, shift, res);
    src[0] = x; src[1] = w; src[2] = b; src[3] = shift; src[4] = res;
    out = ctm__result_image(tp, "conv", x->shape[0], x->shape[1], x->shape[2], w->shape[3], 5, src, ctm__conv_backward);
    out->arg[1] = alpha;
    ctm__conv_of(&g, x, w);
    ctm__conv_forward(tp, out, &g);
    return ctm_done(out);
}

// op: norm_conv  out = alpha·(a * w + b[o] + shift[n,o] + res),  a = silu(group_norm(x, gamma, beta))
// Backward       as conv with a for x, then as group_norm with da for dout      Saves mean and rstd of the groups   Test  op_norm_conv
// The two operations in one, so that a lives in scratch only: it is made anew in the backward pass (one sweep over x). A
// U-Net's activations in memory are then x, h and little else: half of what two operations would keep.
static void ctm__norm_conv_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm_tensor *x = out->src[0], *gamma = out->src[5], *beta = out->src[6];
    ctm__conv_grads d = ctm__conv_wanted(tp, out);
    ctm_real *dgamma = ctm_grad(tp, gamma), *dbeta = ctm_grad(tp, beta), *a;
    ctm__norm_job j;
    ctm__conv g;
    ctm_mark m;
    int wanted;
    ctm__norm_of(&j, tp, out, x, gamma, beta);
    j.dx = ctm__grad_first(tp, x, &j.add);
    wanted = j.dx || dgamma || dbeta;
    m = ctm_arena_mark(tp->arena);
    a = (ctm_real *)ctm_alloc_raw(tp->arena, x->len * sizeof(ctm_real));
    j.out = a;
    j.again = 1;
    if (d.dw) ctm__norm_run(tp, &j, x->shape[0]);
    ctm__conv_of(&g, x, out->src[1]);
    g.x = a;
    ctm__conv_back(tp, out, &d, &g, wanted ? a : NULL, 0);               // a becomes da
    j.dout = a;
    if (wanted) ctm__norm_back(tp, &j, x->shape[0], dgamma, dbeta);
    ctm_arena_release(tp->arena, m);
}
CTM__DEF ctm_tensor *ctm_norm_conv(ctm_tape *tp, ctm_tensor *x, ctm_tensor *gamma, ctm_tensor *beta, int groups, double eps,
                                   ctm_tensor *w, ctm_tensor *b, ctm_tensor *shift, ctm_tensor *res, double alpha) {
    ctm_tensor *out, *src[7];
    ctm__norm_job j;
    ctm__conv g;
    ctm_mark m;
    ctm__norm_check(x, gamma, beta, groups);
    ctm__conv_check(x, w, b, shift, res);
    src[0] = x; src[1] = w; src[2] = b; src[3] = shift; src[4] = res; src[5] = gamma; src[6] = beta;
    out = ctm__result_image(tp, "norm_conv", x->shape[0], x->shape[1], x->shape[2], w->shape[3], 7, src, ctm__norm_conv_backward);
    ctm__norm_settings(tp, out, x->shape[0], groups, eps, 1);
    out->arg[1] = alpha;
    m = ctm_arena_mark(tp->arena);
    ctm__norm_of(&j, tp, out, x, gamma, beta);
    j.out = (ctm_real *)ctm_alloc_raw(tp->arena, x->len * sizeof(ctm_real));
    ctm__norm_run(tp, &j, x->shape[0]);
    ctm__conv_of(&g, x, w);
    g.x = j.out;
    ctm__conv_forward(tp, out, &g);
    ctm_arena_release(tp->arena, m);
    return ctm_done(out);
}

// op: attention  for each sample and head:  S = softmax(q·k^T/sqrt(c)),  out = S·v       qkv [B,H,W,3C]  out [B,H,W,C]
//                c = C/heads; channel 3·(h·c + i) + j of qkv is channel i of head h's q, k, v for j = 0, 1, 2
// Backward       dv = S^T·dout;  dS = dout·v^T;  dz = S∘(dS - row sums of S∘dS)/sqrt(c), ∘ entry by entry;  dq = dz·k;  dk = dz^T·q
//                                                   Saves S [B,heads,T,T], T = H·W     Test  op_attention
typedef struct ctm__attention_job {
    ctm_ctx *ctx; int T, C, heads, add; const ctm_real *qkv, *dout; ctm_real *S, *out, *dqkv;
} ctm__attention_job;

// q, k, v [T,c] of one head from the interleaved channels; k and v also transposed if kt, vt are given.
static void ctm__attention_split(const ctm__attention_job *j, int n, int h, ctm_real *q, ctm_real *k, ctm_real *v,
                                 ctm_real *kt, ctm_real *vt) {
    int c = j->C / j->heads, p, i;
    for (p = 0; p < j->T; p++) {
        const ctm_real *from = j->qkv + ((size_t)n * (size_t)j->T + (size_t)p) * 3 * (size_t)j->C + 3 * (size_t)(h * c);
        for (i = 0; i < c; i++) {
            q[p * c + i] = from[3 * i];
            k[p * c + i] = from[3 * i + 1];
            v[p * c + i] = from[3 * i + 2];
            if (kt) kt[i * j->T + p] = from[3 * i + 1];
            if (vt) vt[i * j->T + p] = from[3 * i + 2];
        }
    }
}
static void ctm__attention_piece(void *arg, int piece, void *scratch) {
    const ctm__attention_job *j = (const ctm__attention_job *)arg;
    const ctm__kernels *kernels = j->ctx->kernels;
    int n = piece / j->heads, h = piece % j->heads, T = j->T, c = j->C / j->heads, p;
    ctm_real *q = (ctm_real *)scratch, *k = q + T * c, *v = k + T * c, *kt = v + T * c, *S = j->S + (size_t)piece * (size_t)T * (size_t)T;
    ctm__attention_split(j, n, h, q, k, v, kt, NULL);
    kernels->gemm(T, T, c, q, c, 1, kt, T, S, T, NULL, 0);
    for (p = 0; p < T; p++) kernels->softmax(T, 1 / sqrt((double)c), S + (size_t)p * (size_t)T);
    kernels->gemm(T, c, T, S, T, 1, v, c, j->out + (size_t)n * (size_t)T * (size_t)j->C + (size_t)(h * c), j->C, NULL, 0);
}
static void ctm__attention_backward_piece(void *arg, int piece, void *scratch) {
    const ctm__attention_job *j = (const ctm__attention_job *)arg;
    const ctm__kernels *kernels = j->ctx->kernels;
    int n = piece / j->heads, h = piece % j->heads, T = j->T, c = j->C / j->heads, p, i;
    ctm_real *q = (ctm_real *)scratch, *k = q + T * c, *v = k + T * c, *vt = v + T * c, *d[3], *dz = vt + T * c;
    const ctm_real *S = j->S + (size_t)piece * (size_t)T * (size_t)T,
        *dout = j->dout + (size_t)n * (size_t)T * (size_t)j->C + (size_t)(h * c);
    ctm_real *dd = dz + (size_t)T * (size_t)T;
    for (i = 0; i < 3; i++) d[i] = dd + i * T * c;
    for (p = 0; p < T; p++) memcpy(d[0] + p * c, dout + (size_t)p * (size_t)j->C, (size_t)c * sizeof *dd);  // rows together
    ctm__attention_split(j, n, h, q, k, v, NULL, vt);
    kernels->gemm(T, T, c, d[0], c, 1, vt, T, dz, T, NULL, 0);                                   // dS = dout·v^T
    kernels->gemm(T, c, T, S, 1, T, d[0], c, d[2], c, NULL, 0);                                  // dv = S^T·dout
    for (p = 0; p < T; p++) kernels->softmax_backward(T, 1 / sqrt((double)c), S + (size_t)p * (size_t)T, dz + (size_t)p * (size_t)T);
    kernels->gemm(T, c, T, dz, T, 1, k, c, d[0], c, NULL, 0);                                    // dq = dz·k
    kernels->gemm(T, c, T, dz, 1, T, q, c, d[1], c, NULL, 0);                                    // dk = dz^T·q
    for (p = 0; p < T; p++) {
        ctm_real *to = j->dqkv + ((size_t)n * (size_t)T + (size_t)p) * 3 * (size_t)j->C + 3 * (size_t)(h * c);
        for (i = 0; i < 3 * c; i++) to[i] = d[i % 3][p * c + i / 3] + (j->add ? to[i] : 0);
    }
}
static void ctm__attention_of(ctm__attention_job *j, ctm_tape *tp, const ctm_tensor *out, const ctm_tensor *qkv) {
    memset(j, 0, sizeof *j);
    j->ctx = tp->ctx;
    j->T = qkv->shape[1] * qkv->shape[2];
    j->C = qkv->shape[3] / 3;
    j->heads = out->iarg[0];
    j->qkv = qkv->data;
    j->S = out->saved;
}
static void ctm__attention_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm__attention_job j;
    size_t T, c;
    ctm__attention_of(&j, tp, out, out->src[0]);
    j.dqkv = ctm__grad_first(tp, out->src[0], &j.add);
    j.dout = out->grad;
    T = (size_t)j.T;
    c = (size_t)(j.C / j.heads);
    ctm__parallel_scratch(tp->arena, out->shape[0] * j.heads, (7 * T * c + T * T) * sizeof(ctm_real), ctm__attention_backward_piece, &j);
}
CTM__DEF ctm_tensor *ctm_attention(ctm_tape *tp, ctm_tensor *qkv, int heads) {
    ctm_tensor *out;
    ctm__attention_job j;
    size_t T;
    CTM__SHAPES(qkv->ndim == 4 && heads > 0 && qkv->shape[3] % (3 * heads) == 0, "ctm_attention",
                "qkv must be [B,H,W,3C] with C a multiple of the heads", qkv, NULL);
    out = ctm__result_image(tp, "attention", qkv->shape[0], qkv->shape[1], qkv->shape[2], qkv->shape[3] / 3, 1, &qkv,
                            ctm__attention_backward);
    out->iarg[0] = heads;
    T = (size_t)qkv->shape[1] * (size_t)qkv->shape[2];
    out->saved = (ctm_real *)ctm_alloc_raw(tp->arena, (size_t)(qkv->shape[0] * heads) * T * T * sizeof(ctm_real));
    ctm__attention_of(&j, tp, out, qkv);
    j.out = out->data;
    ctm__parallel_scratch(tp->arena, qkv->shape[0] * heads, 4 * T * (size_t)(j.C / heads) * sizeof(ctm_real), ctm__attention_piece, &j);
    return ctm_done(out);
}
#endif

// op: dropout    out = x·mask/(1-p), mask = 0 with probability p (to the next 1/65536), else 1
// Backward       dx += dout·mask/(1-p)              Saves where its draws begin: the mask is drawn again   Test  op_dropout
// The draw of a number is a function of (stream, step, row in the whole batch, how many dropouts came before, place).
typedef struct ctm__dropout_draw {         // kept with the result
    ctm_rng rng; ctm_rows rows; uint64_t drop; uint32_t keep;
} ctm__dropout_draw;
typedef struct ctm__dropout_job { ctm__dropout_draw d; size_t D; const ctm_real *x; ctm_real *out; int add; } ctm__dropout_job;
static void ctm__dropout_piece(void *arg, int n) {
    const ctm__dropout_job *j = (const ctm__dropout_job *)arg;
    ctm_real factor = (ctm_real)(65536.0 / j->d.keep);
    const ctm_real *x = j->x + (size_t)n * j->D;
    ctm_real *out = j->out + (size_t)n * j->D;
    uint64_t block = ((ctm__row_number(&j->d.rows, n) << 10) + j->d.drop) << 24;
    uint32_t bits[4];
    size_t i;
    int l;
    for (i = 0; i < j->D; i += 8) {                              // one block of 128 bits serves eight numbers
        ctm_bits(&j->d.rng, j->d.rows.step, block + i / 8, bits);
        for (l = 0; l < 8 && i + (size_t)l < j->D; l++) {
            ctm_real v = (bits[l / 2] >> (16 * (l % 2)) & 0xffff) < j->d.keep ? x[i + (size_t)l] * factor : 0;
            out[i + (size_t)l] = v + (j->add ? out[i + (size_t)l] : 0);
        }
    }
}
static void ctm__dropout_run(ctm_tape *tp, const ctm_tensor *out, const ctm_real *from, ctm_real *to, int add) {
    ctm__dropout_job j;
    memcpy(&j.d, out->saved, sizeof j.d);
    j.D = ctm__row_len(out);
    j.x = from;
    j.out = to;
    j.add = add;
    ctm_parallel_for(tp->ctx, out->shape[0], ctm__dropout_piece, &j);
}
static void ctm__dropout_backward(ctm_tape *tp, ctm_tensor *out) {
    int add;
    ctm_real *dx = ctm__grad_first(tp, out->src[0], &add);
    ctm__dropout_run(tp, out, out->grad, dx, add);
}
CTM__DEF ctm_tensor *ctm_dropout(ctm_tape *tp, ctm_tensor *x, double p) {
    ctm_tensor *out;
    ctm__dropout_draw d;
    CTM__REQUIRE(p >= 0 && p < 1, "ctm_dropout: %g is no probability below 1", p);
    if (!tp->rows.dropout || p == 0) return x;
    CTM__SHAPES(x->ndim >= 1 && ctm__row_len(x) < (size_t)1 << 27 && tp->drops < 1024, "ctm_dropout",
                "rows of fewer than 2^27 numbers, fewer than 1024 dropouts", x, NULL);
    out = ctm__result_like(tp, "dropout", x, NULL, ctm__dropout_backward);
    d.rng = *tp->rows.dropout;
    d.rows = tp->rows;
    d.drop = (uint64_t)tp->drops++;
    d.keep = (uint32_t)(65536 * (1 - p) + 0.5);
    if (d.keep < 1) d.keep = 1;
    out->saved = (ctm_real *)ctm_alloc_raw(tp->arena, sizeof d);
    memcpy(out->saved, &d, sizeof d);
    ctm__dropout_run(tp, out, x->data, out->data, 0);
    return ctm_done(out);
}

#ifndef CTM_NO_IMAGES
// op: frequencies   z = ln(t)/4;  out = [sin(z·f_i) | cos(z·f_i)],  f_i = 10000^(-i/(n/2-1)), i < n/2       t [B]  out [B,n]
// Backward          none: t is a constant                           Saves nothing    Test  op_frequencies
CTM__DEF ctm_tensor *ctm_frequencies(ctm_tape *tp, ctm_tensor *t, int n) {
    int B = t->shape[0], half = n / 2, i, k;
    ctm_tensor *out;
    CTM__SHAPES(t->ndim == 1 && !ctm__wants(t), "ctm_frequencies", "t must be [B] and cannot want a gradient", t, NULL);
    CTM__REQUIRE(n >= 4 && n % 2 == 0, "ctm_frequencies: %d is no even number of at least 4", n);
    out = ctm__result(tp, "frequencies", 2, B, n, NULL, NULL, NULL, NULL, NULL);
    for (i = 0; i < B; i++)
        for (k = 0; k < half; k++) {
            double a = log((double)t->data[i]) / 4 * pow(10000, -(double)k / (half - 1));
            out->data[(size_t)i * (size_t)n + (size_t)k] = (ctm_real)sin(a);
            out->data[(size_t)i * (size_t)n + (size_t)(half + k)] = (ctm_real)cos(a);
        }
    return ctm_done(out);
}

// op: max_pool   out[y,x] = the largest of the four x[2y..2y+1, 2x..2x+1]  x [B,H,W,C], H and W even   out [B,H/2,W/2,C]
// Backward       dx += dout where the largest was, the first of equals    Saves nothing    Test  op_max_pool
typedef struct ctm__pool_job { int W, C; const ctm_real *x, *dout; ctm_real *out, *dx; } ctm__pool_job;

// Where the largest of the four pixels is that begin at p, each C numbers apart and `row` numbers below: NaN counts as largest.
static size_t ctm__largest_of_four(const ctm_real *p, size_t C, size_t row) {
    size_t at[4], best = 0;
    int k;
    at[0] = 0; at[1] = C; at[2] = row; at[3] = row + C;
    for (k = 1; k < 4; k++) if (p[at[k]] > p[best] || p[at[k]] != p[at[k]]) best = at[k];
    return best;
}
static void ctm__pool_piece(void *arg, int row) {
    const ctm__pool_job *j = (const ctm__pool_job *)arg;
    size_t C = (size_t)j->C, wide = 2 * (size_t)j->W * C, x, c;
    for (x = 0; x < (size_t)j->W; x++)
        for (c = 0; c < C; c++) {
            size_t low = ((size_t)row * (size_t)j->W + x) * C + c, large = 2 * (size_t)row * wide + 2 * x * C + c;
            large += ctm__largest_of_four(j->x + large, C, wide);
            if (j->out) j->out[low] = j->x[large];
            else        j->dx[large] += j->dout[low];
        }
}
static void ctm__pool_run(ctm_tape *tp, const ctm_tensor *x, const ctm_tensor *out, ctm_real *to, ctm_real *dx) {
    ctm__pool_job j;
    j.W = out->shape[2]; j.C = out->shape[3]; j.x = x->data; j.dout = out->grad; j.out = to; j.dx = dx;
    ctm_parallel_for(tp->ctx, out->shape[0] * out->shape[1], ctm__pool_piece, &j);
}
static void ctm__max_pool_backward(ctm_tape *tp, ctm_tensor *out) { ctm__pool_run(tp, out->src[0], out, NULL, ctm_grad(tp, out->src[0])); }
CTM__DEF ctm_tensor *ctm_max_pool(ctm_tape *tp, ctm_tensor *x) {
    ctm_tensor *out;
    CTM__SHAPES(x->ndim == 4 && x->shape[1] % 2 == 0 && x->shape[2] % 2 == 0, "ctm_max_pool",
                "x must be [B,H,W,C] with even H and W", x, NULL);
    out = ctm__result_image(tp, "max_pool", x->shape[0], x->shape[1] / 2, x->shape[2] / 2, x->shape[3], 1, &x, ctm__max_pool_backward);
    ctm__pool_run(tp, x, out, out->data, NULL);
    return ctm_done(out);
}

// op: resize     out[i,j] = (1-f)(1-g)·x[p,q] + (1-f)·g·x[p,q+1] + f·(1-g)·x[p+1,q] + f·g·x[p+1,q+1]      x [B,h,w,C]  out [B,H,W,C]
//                p + f = max(0, (i + 1/2)·h/H - 1/2), p whole, f < 1; likewise q + g; what lies beyond the edge is the edge
// Backward       the four dx += their factor times dout    Saves nothing    Test  op_resize
typedef struct ctm__resize_job { int h, w, H, W, C; const ctm_real *x, *dout; ctm_real *out, *dx; } ctm__resize_job;

// The two neighbours of place i of n, among m; returns the second one's share.
static double ctm__neighbours(int i, int n, int m, size_t at[2]) {
    double place = ctm__dmax(0, ((double)i + 0.5) * m / n - 0.5);
    int first = ctm__imin((int)place, m - 1);
    at[0] = (size_t)first;
    at[1] = (size_t)ctm__imin(first + 1, m - 1);
    return place - first;
}
// One row of the result, or its way back. Rows of one image share pixels of x, so on the way back an image is one piece of work.
static void ctm__resize_row(const ctm__resize_job *j, int n, int i) {
    size_t C = (size_t)j->C, p[2], q[2], c;
    size_t image = (size_t)n * (size_t)j->h * (size_t)j->w * C, to = ((size_t)n * (size_t)j->H + (size_t)i) * (size_t)j->W * C;
    double f = ctm__neighbours(i, j->H, j->h, p);
    int k, a, b;
    if (j->out) memset(j->out + to, 0, (size_t)j->W * C * sizeof(ctm_real));
    for (k = 0; k < j->W; k++, to += C) {
        double g = ctm__neighbours(k, j->W, j->w, q);
        for (a = 0; a < 2; a++)
            for (b = 0; b < 2; b++) {
                size_t from = image + (p[a] * (size_t)j->w + q[b]) * C;
                ctm_real share = (ctm_real)((a ? f : 1 - f) * (b ? g : 1 - g));
                if (j->out) for (c = 0; c < C; c++) j->out[to + c] += share * j->x[from + c];
                else        for (c = 0; c < C; c++) j->dx[from + c] += share * j->dout[to + c];
            }
    }
}
static void ctm__resize_piece(void *arg, int row) {
    const ctm__resize_job *j = (const ctm__resize_job *)arg;
    ctm__resize_row(j, row / j->H, row % j->H);
}
static void ctm__resize_back_piece(void *arg, int n) {
    const ctm__resize_job *j = (const ctm__resize_job *)arg;
    int i;
    for (i = 0; i < j->H; i++) ctm__resize_row(j, n, i);
}
static void ctm__resize_of(ctm__resize_job *j, const ctm_tensor *x, const ctm_tensor *out) {
    memset(j, 0, sizeof *j);
    j->h = x->shape[1]; j->w = x->shape[2]; j->H = out->shape[1]; j->W = out->shape[2]; j->C = x->shape[3];
    j->x = x->data;
}
static void ctm__resize_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm__resize_job j;
    ctm__resize_of(&j, out->src[0], out);
    j.dout = out->grad;
    j.dx = ctm_grad(tp, out->src[0]);
    ctm_parallel_for(tp->ctx, out->shape[0], ctm__resize_back_piece, &j);
}
CTM__DEF ctm_tensor *ctm_resize(ctm_tape *tp, ctm_tensor *x, int H, int W) {
    ctm_tensor *out;
    ctm__resize_job j;
    CTM__SHAPES(x->ndim == 4 && x->shape[1] > 0 && x->shape[2] > 0, "ctm_resize", "x must be [B,H,W,C]", x, NULL);
    CTM__REQUIRE(H > 0 && W > 0, "ctm_resize: \"%s\" to %d x %d pixels?", x->name, H, W);
    out = ctm__result_image(tp, "resize", x->shape[0], H, W, x->shape[3], 1, &x, ctm__resize_backward);
    ctm__resize_of(&j, x, out);
    j.out = out->data;
    ctm_parallel_for(tp->ctx, x->shape[0] * H, ctm__resize_piece, &j);
    return ctm_done(out);
}

// op: unit_channels   out = c[k]·x[k]/(|x| + eps),  |x| the length of a pixel's C channels          x, out [B,H,W,C]  c [C] or none
// Backward            with h = c·dout, l = |x| + eps:  dx += h/l - x·sum(h·x)/(|x|·l²);  nothing where |x| = 0, which has no direction
//                                                     Saves |x| of every pixel      Test  op_unit_channels
typedef struct ctm__unit_job {
    const ctm__kernels *kernels; size_t rows, C; double eps; const ctm_real *x, *c, *dout; ctm_real *out, *dx, *length;
} ctm__unit_job;

static void ctm__unit_piece(void *arg, int piece) {
    const ctm__unit_job *j = (const ctm__unit_job *)arg;
    size_t r = (size_t)piece * CTM__ROWS, end = r + CTM__ROWS < j->rows ? r + CTM__ROWS : j->rows, k;
    for (; r < end; r++) {
        const ctm_real *x = j->x + r * j->C;
        ctm_real *out = j->out + r * j->C, factor;
        double length = sqrt(j->kernels->sumsq(j->C, x));
        if (j->length) j->length[r] = (ctm_real)length;
        factor = (ctm_real)(1 / (length + j->eps));
        for (k = 0; k < j->C; k++) out[k] = (j->c ? j->c[k] : 1) * x[k] * factor;
    }
}
static void ctm__unit_back_piece(void *arg, int piece) {
    const ctm__unit_job *j = (const ctm__unit_job *)arg;
    size_t r = (size_t)piece * CTM__ROWS, end = r + CTM__ROWS < j->rows ? r + CTM__ROWS : j->rows, k;
    for (; r < end; r++) {
        const ctm_real *x = j->x + r * j->C, *dout = j->dout + r * j->C;
        ctm_real *dx = j->dx + r * j->C;
        double length = (double)j->length[r], l = length + j->eps, along = 0;
        if (length == 0) continue;
        for (k = 0; k < j->C; k++) along += (double)(j->c ? j->c[k] : 1) * (double)dout[k] * (double)x[k];
        along /= length * l;
        for (k = 0; k < j->C; k++) dx[k] += (ctm_real)(((double)(j->c ? j->c[k] : 1) * (double)dout[k] - along * (double)x[k]) / l);
    }
}
static void ctm__unit_run(ctm_tape *tp, const ctm_tensor *out, ctm_real *dx) {
    ctm__unit_job j;
    j.kernels = tp->ctx->kernels;
    j.C = (size_t)out->shape[3];
    j.rows = j.C ? out->len / j.C : 0;
    j.eps = out->arg[0];
    j.x = out->src[0]->data;
    j.c = out->src[1] ? out->src[1]->data : NULL;
    j.dout = out->grad;
    j.out = out->data;
    j.dx = dx;
    j.length = out->saved;
    ctm_parallel_for(tp->ctx, ctm__row_pieces(j.rows), dx ? ctm__unit_back_piece : ctm__unit_piece, &j);
}
static void ctm__unit_channels_backward(ctm_tape *tp, ctm_tensor *out) { ctm__unit_run(tp, out, ctm_grad(tp, out->src[0])); }
CTM__DEF ctm_tensor *ctm_unit_channels(ctm_tape *tp, ctm_tensor *x, ctm_tensor *c, double eps) {
    ctm_tensor *out;
    CTM__SHAPES(x->ndim == 4, "ctm_unit_channels", "x must be [B,H,W,C]", x, NULL);
    if (c) CTM__SHAPES(c->len == (size_t)x->shape[3] && !ctm__wants(c), "ctm_unit_channels", "x [B,H,W,C] needs constants c [C]", x, c);
    CTM__REQUIRE(eps > 0, "ctm_unit_channels: eps is %g, but must be above 0", eps);
    out = ctm__result_like(tp, "unit_channels", x, c, ctm__unit_channels_backward);
    out->arg[0] = eps;
    if (out->wants)
        out->saved = (ctm_real *)ctm_alloc_raw(tp->arena, ((size_t)x->shape[0] * (size_t)x->shape[1] * (size_t)x->shape[2] + 1) *
                                                          sizeof(ctm_real));
    ctm__unit_run(tp, out, NULL);
    return ctm_done(out);
}
#endif

// =====================================================================================================================
// CHAPTER 9. NETWORKS
//
// A network is a list of named parameters and a function. All parameters lie in one array theta and all gradients in another, so
// that the optimiser, the moving averages and the sums over shards are single loops. There are two ways to have a network twice. A clone
// has its own theta: a moving average. A view shares theta and has its own gradient, for a shard; or it has no gradient and is frozen:
// gradients pass through it to its input, but its weights get none.
//
// The network for points is an MLP [eq:film]. Its input is x. The noise levels t and s scale and shift the output of every layer (FiLM),
// which works far better than to append them to x, since what a layer should do changes with the level:
//
//        f(z) = [z, sin(f_k z), cos(f_k z)]        z = ln(t)/4,  f_k = (pi/2)·{1,2,4,8}            9 features
//        e    = silu(W_t f(z_t) + b_t + W_s f(z_s) + W_label[label])                              [B,E]
//        (scale_l, shift_l) = columns of  W_film e + b_film                                       [B,2H] for each layer
//        h_0  = c_in·x;   h_{l+1} = silu((1 + scale_l)·(W_l h_l + b_l) + shift_l);   F = W_out h_L + b_out
//
// A teacher has no W_s. A network with classes has W_label, with a row for every class; a sample without a label adds no row of it.
// Weights are stored [in,out], as the product needs them; files have PyTorch's [out,in].
// =====================================================================================================================

CTM__DEF ctm_net *ctm_net_new(ctm_arena *a, const char *kind, const ctm_noise *noise, int dim, int with_s) {
    ctm_net *net = (ctm_net *)ctm_alloc(a, sizeof *net);
    snprintf(net->kind, sizeof net->kind, "%s", kind);
    net->ctx = a->ctx;
    net->arena = a;
    net->noise = *noise;
    net->dim = dim;
    net->with_s = with_s;
    return net;
}

CTM__DEF int ctm_param(ctm_arena *a, ctm_net *net, const char *name, int rows, int cols) {
    int shape[2];
    CTM__REQUIRE(net->count < CTM_MAX_PARAMS, "ctm_param: more than %d parameters", CTM_MAX_PARAMS);
    shape[0] = rows;
    shape[1] = cols;
    net->param[net->count] = ctm__tensor(a, name, "leaf", cols ? 2 : 1, shape);
    if (cols) net->last_weight = net->count;           // the last matrix, until another one follows
    return net->count++;
}

CTM__DEF int ctm_param_conv(ctm_arena *a, ctm_net *net, const char *name, int k, int in, int out) {
    int shape[4];
    CTM__REQUIRE(net->count < CTM_MAX_PARAMS, "ctm_param_conv: more than %d parameters", CTM_MAX_PARAMS);
    shape[0] = shape[1] = k;
    shape[2] = in;
    shape[3] = out;
    net->param[net->count] = ctm__tensor(a, name, "leaf", 4, shape);
    net->last_weight = net->count;
    return net->count++;
}

// The room of parameter p in theta: its length, rounded up to 16 numbers, so that every parameter begins on a line of the cache.
static size_t ctm__param_room(const ctm_net *net, int p) { return (net->param[p]->len + 15) / 16 * 16; }

static void ctm__net_place(ctm_net *net) {
    size_t at = 0;
    int p;
    for (p = 0; p < net->count; p++) {
        net->param[p]->data = net->theta + at;
        net->param[p]->grad = net->grad ? net->grad + at : NULL;
        at += ctm__param_room(net, p);
    }
}

CTM__DEF void ctm_net_ready(ctm_arena *a, ctm_net *net) {
    int p;
    net->len = 0;
    for (p = 0; p < net->count; p++) net->len += ctm__param_room(net, p);
    net->theta = (ctm_real *)ctm_alloc(a, net->len * sizeof(ctm_real));
    net->grad = (ctm_real *)ctm_alloc(a, net->len * sizeof(ctm_real));
    ctm__net_place(net);
}

// Matrices are uniform in ±gain·sqrt(6/(fan_in + fan_out)), vectors zero. Every parameter has a random stream of its own name, so a new
// parameter changes none of the others.
static void ctm__init_param(ctm_tensor *w, uint64_t seed, double gain) {
    char name[64];
    ctm_rng rng;
    double window = w->ndim == 4 ? w->shape[0] * w->shape[1] : 1, bound;
    size_t i;
    memset(w->data, 0, w->len * sizeof(ctm_real));
    if (w->ndim < 2) return;
    snprintf(name, sizeof name, "init.%s", w->name);
    rng = ctm_stream(seed, name);
    bound = gain * sqrt(6.0 / (window * (w->shape[w->ndim - 2] + w->shape[w->ndim - 1])));
    for (i = 0; i < w->len; i++) w->data[i] = (ctm_real)(bound * (2 * ctm_uniform(&rng, 0, i) - 1));
}

CTM__DEF void ctm_net_init(ctm_net *net, uint64_t seed, double last_gain) {
    int p;
    for (p = 0; p < net->count; p++) ctm__init_param(net->param[p], seed, p == net->last_weight ? last_gain : 1);
}

static ctm_net *ctm__net_copy(ctm_arena *a, const ctm_net *net) {
    ctm_net *copy = (ctm_net *)ctm_alloc(a, sizeof *copy);
    int p;
    *copy = *net;
    copy->arena = a;
    copy->grad = NULL;
    for (p = 0; p < net->count; p++) {
        copy->param[p] = (ctm_tensor *)ctm_alloc(a, sizeof(ctm_tensor));
        *copy->param[p] = *net->param[p];
    }
    return copy;
}

CTM__DEF ctm_net *ctm_net_clone(ctm_arena *a, const ctm_net *net) {
    ctm_net *copy = ctm__net_copy(a, net);
    copy->theta = (ctm_real *)ctm_alloc_raw(a, net->len * sizeof(ctm_real));
    memcpy(copy->theta, net->theta, net->len * sizeof(ctm_real));
    ctm__net_place(copy);
    return copy;
}

CTM__DEF ctm_net *ctm_net_view(ctm_arena *a, const ctm_net *net, int with_grad) {
    ctm_net *copy = ctm__net_copy(a, net);
    if (with_grad) copy->grad = (ctm_real *)ctm_alloc(a, net->len * sizeof(ctm_real));
    ctm__net_place(copy);
    return copy;
}

CTM__DEF ctm_tensor *ctm_param_named(const ctm_net *net, const char *name) {
    int p;
    for (p = 0; p < net->count; p++) if (strcmp(net->param[p]->name, name) == 0) return net->param[p];
    return NULL;
}

CTM__DEF int ctm_net_copy_matching(ctm_net *to, const ctm_net *from) {
    int p, copied = 0;
    for (p = 0; p < to->count; p++) {
        ctm_tensor *w = ctm_param_named(from, to->param[p]->name);
        if (!w || !ctm__same_shape(w, to->param[p])) continue;
        memcpy(to->param[p]->data, w->data, w->len * sizeof(ctm_real));
        copied++;
    }
    return copied;
}

enum { CTM__TIME_FREQS = 4 };

// Rows with equal (t,s,label) share one row of scale and shift, and row[n] is its number. The distinct levels come back in *t_u and *s_u,
// their labels, if label is not NULL, in label_u [B]. It pays because all rows are equal while sampling, and jumps on a grid repeat while
// training. A small hash table of the numbers' bits finds them.
static int *ctm__distinct_levels(ctm_tape *tp, const ctm_tensor *t, const ctm_tensor *s, const int *label, ctm_tensor **t_u,
                                 ctm_tensor **s_u, int *label_u) {
    int B = t->shape[0], U = 0, slots = 16, n, *row = (int *)ctm_alloc_raw(tp->arena, ((size_t)B + 1) * sizeof(int)), *slot, *first;
    ctm_mark m;
    while (slots < 2 * B) slots *= 2;
    *t_u = ctm_vector(tp, "t", B);
    *s_u = s ? ctm_vector(tp, "s", B) : NULL;
    m = ctm_arena_mark(tp->arena);
    slot = (int *)ctm_alloc(tp->arena, (size_t)slots * sizeof(int));              // 0: free, else 1 + number of the pair
    first = (int *)ctm_alloc_raw(tp->arena, ((size_t)B + 1) * sizeof(int));       // the first row that has the pair
    for (n = 0; n < B; n++) {
        ctm_real pair[2];
        uint64_t bits = 0, half = 0;
        int at;
        pair[0] = t->data[n];
        pair[1] = s ? s->data[n] : 0;
        memcpy(&bits, &pair[0], sizeof pair[0]);
        memcpy(&half, &pair[1], sizeof pair[1]);
        bits = (bits * 0x9E3779B97F4A7C15ull) ^ (half * 0xC2B2AE3D27D4EB4Full);
        if (label) bits ^= (uint64_t)(unsigned)(label[n] + 1) * 0xD6E8FEB86659FD93ull;
        for (at = (int)(bits >> 33) & (slots - 1); slot[at]; at = (at + 1) & (slots - 1)) {
            int r = first[slot[at] - 1];
            if (t->data[r] == t->data[n] && (!s || s->data[r] == s->data[n]) && (!label || label[r] == label[n])) break;
        }
        if (!slot[at]) {
            first[U] = n;
            (*t_u)->data[U] = t->data[n];
            if (s) (*s_u)->data[U] = s->data[n];
            if (label) label_u[U] = label[n];
            slot[at] = ++U;
        }
        row[n] = slot[at] - 1;
    }
    ctm_arena_release(tp->arena, m);
    (*t_u)->shape[0] = U;
    (*t_u)->len = (size_t)U;
    if (s) { (*s_u)->shape[0] = U; (*s_u)->len = (size_t)U; }
    return row;
}

// One-hot rows [n,classes] of labels: times W_label they pick its rows, and a label of -1 picks zero.
static ctm_tensor *ctm__one_hot(ctm_tape *tp, const ctm_net *net, const int *label, int n) {
    ctm_tensor *hot = ctm_matrix(tp, "one-hot label", n, net->classes);
    int i;
    for (i = 0; i < n; i++) {
        CTM__REQUIRE(label[i] >= -1 && label[i] < net->classes,
                     "ctm_mlp: label %d is out of range, the network has %d classes (-1: no label)",
                     label[i], net->classes);
        if (label[i] >= 0) hot->data[i * net->classes + label[i]] = 1;
    }
    return hot;
}

// [eq:film]  w points at the next parameter, in the order in which ctm_mlp registers them.
static ctm_tensor *ctm__mlp_forward(ctm_tape *tp, ctm_net *net, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s) {
    int H = net->iconf[0], L = net->iconf[1], l;
    ctm_tensor **w = net->param, *f_t, *f_s, *e, *film, *h;
    const int *labels = net->classes > 0 ? tp->rows.label : NULL;
    int *label = labels ? (int *)ctm_alloc_raw(tp->arena, ((size_t)t->shape[0] + 1) * sizeof(int)) : NULL;
    int *row = ctm__distinct_levels(tp, t, s, labels, &t, &s, label);            // from here t, s, label are of U <= B distinct rows
    f_t = ctm_time_features(tp, t, CTM__TIME_FREQS, 1.57079632679489662, 1);     // f(z_t)                    [U,9]
    e = ctm_linear(tp, f_t, w[0], w[1]);                                         // W_t f(z_t) + b_t          [U,E]
    w += 2;
    if (net->with_s) {
        f_s = ctm_time_features(tp, s, CTM__TIME_FREQS, 1.57079632679489662, 1); // f(z_s)                    [U,9]
        f_s = ctm_linear(tp, f_s, *w++, NULL);                                   // W_s f(z_s)                [U,E]
        e = ctm_add(tp, e, f_s);
    }
    if (label) e = ctm_add(tp, e, ctm_linear(tp, ctm__one_hot(tp, net, label, t->shape[0]), *w, NULL));   // W_label[label]  [U,E]
    if (net->classes > 0) w++;
    e = ctm_silu(tp, e);
    film = ctm_linear(tp, e, w[0], w[1]);                                        // scale and shift, all layers  [U,2LH]
    ctm_name(film, "film");
    w += 2;
    h = x;
    for (l = 0; l < L; l++, w += 2) {
        h = ctm_linear(tp, h, w[0], w[1]);                                       // W_l h_l + b_l             [B,H]
        h = ctm_film_silu(tp, h, film, 2 * l * H, row);                          // h_{l+1}                   [B,H]
    }
    return ctm_linear(tp, h, w[0], w[1]);                                        // F                         [B,D]
}

// [eq:film]  Registers the parameters in the order in which ctm__mlp_forward takes them. They have no memory yet, so
// that a file can be compared with their names and shapes before memory is taken for it.
static ctm_net *ctm__mlp_bare(ctm_arena *a, const ctm_config *cfg, int dim, int with_s) {
    int H = cfg->hidden, L = cfg->layers, E = cfg->embed, F = 2 * CTM__TIME_FREQS + 1, l;
    ctm_net *net = ctm_net_new(a, "mlp", &cfg->noise, dim, with_s);
    char name[32];
    CTM__REQUIRE(dim > 0 && H > 0 && L > 0 && L <= 64 && E > 0, "ctm_mlp: %d layers of width %d for dimension %d?", L, H, dim);
    ctm_param(a, net, "map_t.weight", F, E);
    ctm_param(a, net, "map_t.bias", E, 0);
    if (with_s) ctm_param(a, net, "map_s.weight", F, E);
    if (cfg->classes > 0) ctm_param(a, net, "map_label.weight", cfg->classes, E);
    net->classes = cfg->classes;
    ctm_param(a, net, "film.weight", E, 2 * L * H);
    ctm_param(a, net, "film.bias", 2 * L * H, 0);
    for (l = 0; l < L; l++) {
        snprintf(name, sizeof name, "layers.%d.weight", l);
        ctm_param(a, net, name, l ? H : dim, H);
        snprintf(name, sizeof name, "layers.%d.bias", l);
        ctm_param(a, net, name, H, 0);
    }
    ctm_param(a, net, "out.weight", H, dim);
    ctm_param(a, net, "out.bias", dim, 0);
    net->iconf[0] = H;
    net->iconf[1] = L;
    net->iconf[2] = E;
    net->forward = ctm__mlp_forward;
    return net;
}

// [eq:film]  The same with memory and random weights.
CTM__DEF ctm_net *ctm_mlp(ctm_arena *a, const ctm_config *cfg, int dim, int with_s) {
    ctm_net *net = ctm__mlp_bare(a, cfg, dim, with_s);
    ctm_net_ready(a, net);
    ctm_net_init(net, cfg->seed, 0.1);
    return net;
}

#ifndef CTM_NO_IMAGES
// ---- the U-Net for images: DDPM++ as EDM and CTM use it, with their parameter names
//
//     x [B,H,W,C] ── conv ──┬─ block ─┬─ block ─┬──────────────────────────── block ── block ── block ── norm ── conv ── F
//       size x size         │         │         │         (concatenate)         │       │        │
//                           └─────────┴─────────┴── skips ──────────────────────┴───────┴────────┘
//                                               │                             │
//                                             down ─┬─ block ─ ... ─┐   ┌─── up       half the size, and so on downwards
//                                                   └── skips ──────┴───┘
//
// At the lowest level the blocks in0 (always with attention) and in1 join the way down with the way up. Every block on the way down, and
// `down` too, leaves a skip; every block on the way up takes one, except in0, in1 and `up`. So the way up has one block more at each
// level. The noise levels shift the features of every block; with width = model_channels [eq:unet]:
//
//     shift = affine·e_t + affine_s·e_s                                      e_t, e_s: embeddings of t and s [B,E], E = 4·width
//     h   = conv0( silu(norm0(x)) ) + shift                                  (resampled before conv0 in a block named up or down)
//     h   = conv1( dropout(silu(norm1(h))) )
//     out = (h + skip·x) / sqrt(2)                                           skip: a 1x1 convolution where the shape changes
//     with attention:  out = (proj·attention(qkv·norm2(out)) + out) / sqrt(2)
//
// Both terms of such a sum have about the same variance, which the factors 1/sqrt(2) keep. A teacher has no affine_s.
//
// A convolution over 28 x 28 pixels costs as much as one over 14 x 14 with twice the channels on both sides, which has four times the
// weights. With `patch` = 2 the network therefore begins at 14 x 14 positions, each with the numbers of 2 x 2 pixels (ctm_fold).

typedef struct ctm__ublock {
    int resample;                   // -1: halves the image before conv0, +1: doubles it
    int attn, skip, concat;         // has attention; has a 1x1 convolution on the skip path; takes a skip from the way down
    int first;                      // number of its first parameter
} ctm__ublock;
typedef struct ctm__unet {
    int embed, patch, blocks_down, blocks;       // E; pixels for a position; blocks on the way down, and in all
    double dropout;
    ctm__ublock block[128];
} ctm__unet;

static int ctm__groups(int channels) { return ctm__imin(32, channels / 4); }

// name.weight and name.bias: a window of k x k if k > 0, else a matrix; in = 0: a norm's two vectors.
static void ctm__unet_param(ctm_arena *a, ctm_net *net, const char *prefix, const char *name, int k, int in, int out) {
    char text[48];
    int n = snprintf(text, sizeof text, "%s%s.weight", prefix, name);
    CTM__REQUIRE(n < (int)sizeof text, "ctm_unet: the name %s%s.weight is too long", prefix, name);
    if (k)       ctm_param_conv(a, net, text, k, in, out);
    else if (in) ctm_param(a, net, text, in, out);
    else         ctm_param(a, net, text, out, 0);
    strcpy(text + n - 6, "bias");
    ctm_param(a, net, text, out, 0);
}

// Registers a block's parameters under side.SIZExSIZE_name.
static void ctm__unet_add(ctm_arena *a, ctm_net *net, const char *side, int size, const char *name, int in, int out,
                          int resample, int attn, int concat) {
    ctm__unet *u = (ctm__unet *)net->plan;
    ctm__ublock *b = &u->block[u->blocks++];
    char prefix[40];
    snprintf(prefix, sizeof prefix, "%s.%dx%d_%s.", side, size, size, name);
    b->resample = resample;
    b->attn = attn;
    b->skip = resample || in != out;
    b->concat = concat;
    b->first = net->count;
    ctm__unet_param(a, net, prefix, "norm0", 0, 0, in);
    ctm__unet_param(a, net, prefix, "conv0", 3, in, out);
    ctm__unet_param(a, net, prefix, "affine", 0, u->embed, out);
    if (net->with_s) ctm__unet_param(a, net, prefix, "affine_s", 0, u->embed, out);
    ctm__unet_param(a, net, prefix, "norm1", 0, 0, out);
    ctm__unet_param(a, net, prefix, "conv1", 3, out, out);
    if (b->skip) ctm__unet_param(a, net, prefix, "skip", 1, in, out);
    if (!attn) return;
    ctm__unet_param(a, net, prefix, "norm2", 0, 0, out);
    ctm__unet_param(a, net, prefix, "qkv", 1, out, 3 * out);
    ctm__unet_param(a, net, prefix, "proj", 1, out, out);
}

static ctm_tensor *ctm__unet_norm(ctm_tape *tp, ctm_tensor *x, ctm_tensor **w, int silu) {
    return ctm_group_norm(tp, x, w[0], w[1], ctm__groups(x->shape[3]), 1e-6, silu);
}

static ctm_tensor *ctm__unet_norm_conv(ctm_tape *tp, ctm_tensor *x, ctm_tensor **norm, ctm_tensor **conv, ctm_tensor *shift,
                                       ctm_tensor *res, double alpha) {
    return ctm_norm_conv(tp, x, norm[0], norm[1], ctm__groups(x->shape[3]), 1e-6, conv[0], conv[1], shift, res, alpha);
}

// Forgets all that was made since the mark, except x, if no gradient will pass through it.
static ctm_tensor *ctm__keep_only(ctm_tape *tp, ctm_mark m, ctm_tensor *x) {
    ctm_tensor copy = *x, *moved;
    if (x->wants) return x;
    ctm_arena_release(tp->arena, m);
    moved = (ctm_tensor *)ctm_alloc_raw(tp->arena, sizeof *moved);
    copy.data = (ctm_real *)ctm_alloc_raw(tp->arena, x->len * sizeof(ctm_real));
    // Onto a part of itself it is moved by one thread, in order.
    if (copy.data + x->len > x->data && copy.data < x->data) memmove(copy.data, x->data, x->len * sizeof(ctm_real));
    else ctm__scaled(tp->ctx, x->len, 1, x->data, copy.data, 0);
    copy.saved = NULL;
    memset(copy.src, 0, sizeof copy.src);
    *moved = copy;
    return moved;
}

// [eq:unet]  One block. Parameters come in the order in which ctm__unet_add registers them, two for each name.
static ctm_tensor *ctm__unet_block(ctm_tape *tp, ctm_net *net, const ctm__ublock *b, ctm_tensor *x, ctm_tensor *e_t, ctm_tensor *e_s) {
    ctm_tensor **norm0 = net->param + b->first, **conv0 = norm0 + 2, **affine = norm0 + 4, **affine_s = norm0 + 6;
    ctm_tensor **norm1 = e_s ? affine_s + 2 : affine_s, **conv1 = norm1 + 2, **skip_w = conv1 + 2, **norm2 = b->skip ? skip_w + 2 : skip_w;
    ctm_tensor **qkv = norm2 + 2, **proj = norm2 + 4;
    double dropout = ((const ctm__unet *)net->plan)->dropout;
    ctm_tensor *h, *shift, *skip = x;
    shift = ctm_linear(tp, e_t, affine[0], affine[1]);
    if (e_s) shift = ctm_add(tp, shift, ctm_linear(tp, e_s, affine_s[0], affine_s[1]));
    // a 1x1 convolution may come before the doubling, where it is a quarter of the work
    if (b->resample > 0) skip = ctm_up(tp, ctm_conv(tp, x, skip_w[0], skip_w[1], NULL, NULL, 1));
    else if (b->skip)    skip = ctm_conv(tp, b->resample ? ctm_down(tp, x) : x, skip_w[0], skip_w[1], NULL, NULL, 1);
    if (b->resample) {
        ctm_mark m = ctm_arena_mark(tp->arena);                  // while sampling only h is kept of these
        h = ctm__unet_norm(tp, x, norm0, 1);
        h = b->resample < 0 ? ctm_down(tp, h) : ctm_up(tp, h);
        h = ctm__keep_only(tp, m, ctm_conv(tp, h, conv0[0], conv0[1], shift, NULL, 1));
    } else {
        h = ctm__unet_norm_conv(tp, x, norm0, conv0, shift, NULL, 1);
    }
    if (tp->rows.dropout && dropout > 0) {
        h = ctm_dropout(tp, ctm__unet_norm(tp, h, norm1, 1), dropout);
        x = ctm_conv(tp, h, conv1[0], conv1[1], NULL, skip, sqrt(0.5));
    } else {
        x = ctm__unet_norm_conv(tp, h, norm1, conv1, NULL, skip, sqrt(0.5));
    }
    if (!b->attn) return x;
    h = ctm_conv(tp, ctm__unet_norm(tp, x, norm2, 0), qkv[0], qkv[1], NULL, NULL, 1);
    return ctm_conv(tp, ctm_attention(tp, h, 1), proj[0], proj[1], NULL, x, sqrt(0.5));
}

// e = silu(W_1·silu(W_0·f + b_0) + b_1), f = frequencies(t); with classes, f gets sqrt(classes)·(the label's row of W_label)
// + b_label added, and without a label b_label alone.
static ctm_tensor *ctm__unet_embed(ctm_tape *tp, ctm_tensor *t, ctm_tensor *label, ctm_tensor **map_label, ctm_tensor **layer) {
    ctm_tensor *f = ctm_frequencies(tp, t, layer[0]->shape[0]);
    if (label) f = ctm_add(tp, f, ctm_linear(tp, label, map_label[0], map_label[1]));
    f = ctm_silu(tp, ctm_linear(tp, f, layer[0], layer[1]));
    return ctm_silu(tp, ctm_linear(tp, f, layer[2], layer[3]));
}

static ctm_tensor *ctm__unet_forward(ctm_tape *tp, ctm_net *net, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s) {
    const ctm__unet *u = (const ctm__unet *)net->plan;
    ctm_tensor **w = net->param, **last = net->param + net->count - 4, *skips[64], *e_t, *e_s = NULL, *label = NULL;
    ctm_mark decoder;
    int B = x->shape[0], n = 0, i;
    CTM__SHAPES(x->ndim == 2 && x->shape[1] == net->dim && t->len == (size_t)B && (!net->with_s || (s && s->len == (size_t)B)), "ctm_unet",
                "x must be [B,size·size·channels], t and (with the branch for it) s [B]", x, t);
    if (net->classes) {                                                          // one-hot rows; a row without a label is zero
        label = ctm_matrix(tp, "label", B, net->classes);
        for (i = 0; i < B && tp->rows.label; i++) {
            int k = tp->rows.label[i];
            CTM__REQUIRE(k >= -1 && k < net->classes, "ctm_unet: label %d of row %d is not below %d", k, i, net->classes);
            if (k >= 0) label->data[(size_t)i * (size_t)net->classes + (size_t)k] = (ctm_real)sqrt((double)net->classes);
        }
        w += 2;
    }
    e_t = ctm__unet_embed(tp, t, label, net->param, w);                          // [B,E]
    w += 4;
    if (net->with_s) { e_s = ctm__unet_embed(tp, s, label, net->param, w); w += 4; }

    x = ctm_reshape(tp, x, 4, B, net->size, net->size, net->channels);
    if (u->patch > 1) x = ctm_fold(tp, x, u->patch);
    skips[n++] = x = ctm_conv(tp, x, w[0], w[1], NULL, NULL, 1);
    for (i = 0; i < u->blocks_down; i++) {                                       // downwards: everything is kept for the way up
        ctm_mark m = ctm_arena_mark(tp->arena);
        x = ctm__unet_block(tp, net, &u->block[i], x, e_t, e_s);
        skips[n++] = x = ctm__keep_only(tp, m, x);
    }
    decoder = ctm_arena_mark(tp->arena);
    for (; i < u->blocks; i++) {                                                 // upwards
        if (u->block[i].concat) x = ctm_concat(tp, x, skips[--n]);
        x = ctm__unet_block(tp, net, &u->block[i], x, e_t, e_s);
        x = ctm__keep_only(tp, decoder, x);
    }
    x = ctm__unet_norm_conv(tp, x, last, last + 2, NULL, NULL, 1);
    if (u->patch > 1) x = ctm_unfold(tp, x, u->patch);
    return ctm_reshape(tp, x, 2, B, net->dim, 0, 0);
}

CTM__DEF int ctm_unet_fits(ctm_ctx *ctx, const ctm_config *cfg) {
    int levels = 0, blocks, i, l, c, n = 0, skip[64], side;
    while (levels < 8 && cfg->channel_mult[levels] > 0) levels++;
    if (cfg->size < 1 || cfg->size > 4096 || cfg->channels < 1 || cfg->channels > 1024)
        return ctm__fail(ctx, "U-Net for images of %d x %d with %d channels?", cfg->size, cfg->size, cfg->channels);
    if ((double)cfg->size * cfg->size * cfg->channels > 1 << 30)
        return ctm__fail(ctx, "U-Net: %d x %d pixels of %d channels are too many numbers", cfg->size, cfg->size, cfg->channels);
    if (!levels || cfg->num_blocks < 1 || cfg->num_blocks > 12)
        return ctm__fail(ctx, "U-Net with %d levels of %d blocks?", levels, cfg->num_blocks);
    if (cfg->patch < 1 || cfg->size % cfg->patch || cfg->patch * cfg->patch > 1024 / cfg->channels)
        return ctm__fail(ctx, "U-Net: size %d cannot be cut into patches of %d x %d pixels, at most 1024 numbers each", cfg->size,
                         cfg->patch, cfg->patch);
    side = cfg->size / cfg->patch;
    if (side % (1 << (levels - 1)))
        return ctm__fail(ctx, "U-Net: size %d cannot be halved %d times, as %d levels need", side, levels - 1, levels);
    if (cfg->model_channels < 4 || cfg->model_channels > 4096 || cfg->model_channels % 4)
        return ctm__fail(ctx, "U-Net: model_channels is %d, but a multiple of 4 was expected", cfg->model_channels);
    if (cfg->classes < 0 || cfg->classes > 100000) return ctm__fail(ctx, "U-Net with %d classes?", cfg->classes);
    if (!(cfg->dropout >= 0 && cfg->dropout < 1)) return ctm__fail(ctx, "U-Net: dropout %g is no probability below 1", cfg->dropout);
    for (i = 0; i < 4 && cfg->attn[i]; i++) {
        for (l = 0; l < levels && side >> l != cfg->attn[i]; l++) { }
        if (l == levels)
            return ctm__fail(ctx, "U-Net: attention at resolution %d, but the levels are %d down to %d", cfg->attn[i], side,
                             side >> (levels - 1));
    }
    for (l = 0; l < levels; l++)
        if (cfg->channel_mult[l] > 64) return ctm__fail(ctx, "U-Net: channel_mult %d is too large", cfg->channel_mult[l]);
    blocks = levels * (2 * cfg->num_blocks + 1) + 2 * (levels - 1) + 2;
    if (blocks > 128 || levels * (cfg->num_blocks + 1) > 64) return ctm__fail(ctx, "U-Net: %d blocks are too many", blocks);
    skip[n++] = c = cfg->model_channels;                 // every width that a GroupNorm will see, as ctm_unet goes through them
    for (l = 0; l < levels; l++) {
        if (l) skip[n++] = c;
        for (i = 0; i < cfg->num_blocks; i++) skip[n++] = c = cfg->model_channels * cfg->channel_mult[l];
    }
    for (l = levels - 1; l >= 0; l--)
        for (i = 0; i <= cfg->num_blocks; i++) {
            int joined = c + skip[--n];
            if (skip[n] % ctm__groups(skip[n])) joined = skip[n];
            if (joined % ctm__groups(joined))
                return ctm__fail(ctx, "U-Net: a layer of %d channels cannot be cut into %d equal groups", joined, ctm__groups(joined));
            c = cfg->model_channels * cfg->channel_mult[l];
        }
    return 1;
}

static int ctm__attends(const ctm_config *cfg, int size) {
    int i;
    for (i = 0; i < 4 && cfg->attn[i]; i++) if (cfg->attn[i] == size) return 1;
    return 0;
}

// Glorot's uniform distribution for all weights; nearly zero for those that end a block, so that a fresh network is nearly its skips.
static void ctm__unet_init(ctm_net *net, uint64_t seed) {
    int p;
    for (p = 0; p < net->count; p++) {
        const char *name = net->param[p]->name;
        size_t n = strlen(name), i;
        double gain = strstr(name, ".conv1.") || strstr(name, ".proj.") || strstr(name, "_aux_conv.") ? 1e-5 :
                      strstr(name, ".qkv.") ? sqrt(0.2) : 1;
        ctm__init_param(net->param[p], seed, gain);
        if (net->param[p]->ndim == 1 && n > 7 && strcmp(name + n - 7, ".weight") == 0)
            for (i = 0; i < net->param[p]->len; i++) net->param[p]->data[i] = 1;                  // a norm's gamma
    }
}

// [eq:unet]  Registers the blocks in the order of ctm__unet_forward, under the authors' names.
static ctm_net *ctm__unet_bare(ctm_arena *a, const ctm_config *cfg, int with_s) {
    int width = cfg->model_channels, levels = 0, c = width, l, b, n = 0, skip[64], side, numbers;
    ctm_net *net;
    ctm__unet *u;
    char name[32];
    CTM__REQUIRE(ctm_unet_fits(a->ctx, cfg), "ctm_unet: %s", a->ctx->error);
    side = cfg->size / cfg->patch;
    numbers = cfg->channels * cfg->patch * cfg->patch;           // of a position
    while (levels < 8 && cfg->channel_mult[levels] > 0) levels++;
    net = ctm_net_new(a, "unet", &cfg->noise, cfg->size * cfg->size * cfg->channels, with_s);
    net->plan = u = (ctm__unet *)ctm_alloc(a, sizeof *u);
    net->size = cfg->size;
    net->channels = cfg->channels;
    net->classes = cfg->classes;
    u->embed = 4 * width;
    u->patch = cfg->patch;
    u->dropout = cfg->dropout;
    if (cfg->classes) ctm__unet_param(a, net, "", "map_label", 0, cfg->classes, width);
    ctm__unet_param(a, net, "", "map_layer0", 0, width, u->embed);
    ctm__unet_param(a, net, "", "map_layer1", 0, u->embed, u->embed);
    if (with_s) ctm__unet_param(a, net, "", "map_layer0_s", 0, width, u->embed);
    if (with_s) ctm__unet_param(a, net, "", "map_layer1_s", 0, u->embed, u->embed);

    snprintf(name, sizeof name, "enc.%dx%d_conv", side, side);
    ctm__unet_param(a, net, "", name, 3, numbers, width);
    skip[n++] = c;
    for (l = 0; l < levels; l++) {
        int size = side >> l, out = width * cfg->channel_mult[l];
        if (l) { ctm__unet_add(a, net, "enc", size, "down", c, c, -1, 0, 0); skip[n++] = c; }
        for (b = 0; b < cfg->num_blocks; b++) {
            snprintf(name, sizeof name, "block%d", b);
            ctm__unet_add(a, net, "enc", size, name, c, out, 0, ctm__attends(cfg, size), 0);
            skip[n++] = c = out;
        }
    }
    u->blocks_down = u->blocks;
    for (l = levels - 1; l >= 0; l--) {
        int size = side >> l, out = width * cfg->channel_mult[l];
        if (l == levels - 1) {
            ctm__unet_add(a, net, "dec", size, "in0", c, c, 0, 1, 0);
            ctm__unet_add(a, net, "dec", size, "in1", c, c, 0, 0, 0);
        } else ctm__unet_add(a, net, "dec", size, "up", c, c, 1, 0, 0);
        for (b = 0; b <= cfg->num_blocks; b++) {
            snprintf(name, sizeof name, "block%d", b);
            ctm__unet_add(a, net, "dec", size, name, c + skip[--n], out, 0, b == cfg->num_blocks && ctm__attends(cfg, size), 1);
            c = out;
        }
    }
    snprintf(name, sizeof name, "dec.%dx%d_aux_norm", side, side);
    ctm__unet_param(a, net, "", name, 0, 0, c);
    snprintf(name, sizeof name, "dec.%dx%d_aux_conv", side, side);
    ctm__unet_param(a, net, "", name, 3, c, numbers);
    net->forward = ctm__unet_forward;
    return net;
}

// [eq:unet]  The same with memory and random weights.
CTM__DEF ctm_net *ctm_unet(ctm_arena *a, const ctm_config *cfg, int with_s) {
    ctm_net *net = ctm__unet_bare(a, cfg, with_s);
    ctm_net_ready(a, net);
    ctm__unet_init(net, cfg->seed);
    return net;
}
#endif

// The discriminator: x/sigma_data through SiLU layers to one logit. It judges finished points, so no noise level enters.
static ctm_tensor *ctm__disc_forward(ctm_tape *tp, ctm_net *net, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s) {
    ctm_tensor **w = net->param, *h = ctm_scale(tp, x, 1 / net->noise.sigma_data);
    int l;
    (void)t;
    (void)s;
    for (l = 0; l < net->iconf[1]; l++, w += 2) h = ctm_silu(tp, ctm_linear(tp, h, w[0], w[1]));
    return ctm_name(ctm_linear(tp, h, w[0], w[1]), "logit");                     // [B,1]
}

CTM__DEF ctm_net *ctm_mlp_discriminator(ctm_arena *a, const ctm_config *cfg, int dim) {
    int H = cfg->gan_hidden, L = cfg->gan_layers, l;
    ctm_net *net = ctm_net_new(a, "mlp-disc", &cfg->noise, dim, 0);
    char name[32];
    CTM__REQUIRE(dim > 0 && H > 0 && L > 0 && L <= 64, "ctm_mlp_discriminator: %d layers of width %d for dimension %d?", L, H, dim);
    for (l = 0; l < L; l++) {
        snprintf(name, sizeof name, "critic.%d.weight", l);
        ctm_param(a, net, name, l ? H : dim, H);
        snprintf(name, sizeof name, "critic.%d.bias", l);
        ctm_param(a, net, name, H, 0);
    }
    ctm_param(a, net, "logit.weight", H, 1);
    ctm_param(a, net, "logit.bias", 1, 0);
    ctm_net_ready(a, net);
    net->iconf[0] = H;
    net->iconf[1] = L;
    net->forward = ctm__disc_forward;
    ctm_net_init(net, cfg->seed, 1);
    return net;
}

#ifndef CTM_NO_IMAGES
// The discriminator of images. It would soon know a small data set by heart, so it never sees an image as it is: every image is moved by
// up to an eighth of its size (edges repeated), perhaps mirrored, and given another contrast and brightness. All of that is affine in the
// image, so gradients pass through it to the student.
typedef struct ctm__conv_disc { int layers, halvings; ctm_rng augment; } ctm__conv_disc;

static ctm_tensor *ctm__augment(ctm_tape *tp, ctm_tensor *x, const ctm_rng *rng, int size, int channels) {
    int B = x->shape[0], reach = size / 8, pixels = size * size, i, p,
        *from = (int *)ctm_alloc_raw(tp->arena, (size_t)B * (size_t)pixels * sizeof(int));
    ctm_tensor *contrast = ctm_vector(tp, "contrast", B), *brightness = ctm_vector(tp, "brightness", B);
    ctm_tensor *ones = ctm_fill(ctm_matrix(tp, "1", B, pixels * channels), 1);
    for (i = 0; i < B; i++) {
        uint64_t at = 8 * ctm__row_number(&tp->rows, i), step = tp->rows.step;
        int right = (int)(ctm_uniform(rng, step, at) * (2 * reach + 1)) - reach,
            down = (int)(ctm_uniform(rng, step, at + 1) * (2 * reach + 1)) - reach;
        int mirrored = ctm_uniform(rng, step, at + 2) < 0.5;
        contrast->data[i] = (ctm_real)(0.5 + ctm_uniform(rng, step, at + 3));
        brightness->data[i] = (ctm_real)(0.5 * ctm_uniform(rng, step, at + 4) - 0.25);
        for (p = 0; p < pixels; p++) {
            int row = ctm__imin(size - 1, p / size + down), column = ctm__imin(size - 1, p % size + right);
            if (row < 0) row = 0;
            if (column < 0) column = 0;
            from[i * pixels + p] = i * pixels + row * size + (mirrored ? size - 1 - column : column);
        }
    }
    x = ctm_gather_rows(tp, ctm_reshape(tp, x, 2, B * pixels, channels, 0, 0), from, B * pixels);
    return ctm_mix_rows(tp, contrast, ctm_reshape(tp, x, 2, B, pixels * channels, 0, 0), brightness, ones);
}

static ctm_tensor *ctm__conv_disc_forward(ctm_tape *tp, ctm_net *net, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s) {
    const ctm__conv_disc *d = (const ctm__conv_disc *)net->plan;
    ctm_tensor **w = net->param, *h = ctm__augment(tp, x, &d->augment, net->size, net->channels);
    int B = x->shape[0], size = net->size, l;
    (void)t;
    (void)s;
    h = ctm_reshape(tp, ctm_scale(tp, h, 1 / net->noise.sigma_data), 4, B, size, size, net->channels);
    for (l = 0; l < d->layers; l++, w += 2) {
        h = ctm_silu(tp, ctm_conv(tp, h, w[0], w[1], NULL, NULL, 1));
        if (l < d->halvings) { h = ctm_down(tp, h); size /= 2; }
    }
    return ctm_name(ctm_reshape(tp, ctm_conv(tp, h, w[0], w[1], NULL, NULL, 1), 2, B, size * size, 0, 0), "logit");    // [B,K]
}

CTM__DEF ctm_net *ctm_conv_discriminator(ctm_arena *a, const ctm_config *cfg) {
    int H = cfg->gan_hidden, L = cfg->gan_layers, size = cfg->size, in = cfg->channels, l;
    ctm_net *net = ctm_net_new(a, "conv-disc", &cfg->noise, size * size * in, 0);
    ctm__conv_disc *d = (ctm__conv_disc *)ctm_alloc(a, sizeof *d);
    char name[32];
    CTM__REQUIRE(size > 0 && in > 0 && H > 0 && L > 0 && L <= 64,
                 "ctm_conv_discriminator: %d layers of width %d for images of %d x %d x %d?", L, H, size, size, in);
    d->layers = L;
    while (d->halvings < L && size % 2 == 0 && size > 4) { d->halvings++; size /= 2; }
    d->augment = ctm_stream(cfg->seed, "disc.augment");
    net->plan = d;
    net->size = cfg->size;
    net->channels = cfg->channels;
    for (l = 0; l < L; l++) {
        int out = l ? 2 * H : H;
        snprintf(name, sizeof name, "critic.%d.weight", l);
        ctm_param_conv(a, net, name, 3, in, out);
        snprintf(name, sizeof name, "critic.%d.bias", l);
        ctm_param(a, net, name, out, 0);
        in = out;
    }
    ctm_param_conv(a, net, "logit.weight", 1, in, 1);
    ctm_param(a, net, "logit.bias", 1, 0);
    ctm_net_ready(a, net);
    net->forward = ctm__conv_disc_forward;
    ctm_net_init(net, cfg->seed, 1);
    return net;
}
#endif

// =====================================================================================================================
// CHAPTER 10. OPTIMISERS AND MOVING AVERAGES
//
// Gradients of single batches are noisy, and some weights have far larger ones than others. Adam keeps running means m of the gradient and
// v of its square, and moves each weight by -lr·m̂/(sqrt(v̂) + eps). The hats correct for means that begin at zero: m̂ = m/(1 - beta1^k),
// v̂ = v/(1 - beta2^k). In the first steps v̂ is a mean of very few numbers, and its inverse root varies wildly. RAdam [eq:radam] computes
// rho_k, the number of gradients of which v̂ is in effect a mean. While rho_k <= 5 it moves by m̂ alone; afterwards it multiplies Adam's
// step by
//
//        r_k = sqrt( (rho_k - 4)(rho_k - 2) rho_inf / ((rho_inf - 4)(rho_inf - 2) rho_k) ),   rho_inf = 2/(1 - beta2) - 1,
//        rho_k = rho_inf - 2 k beta2^k / (1 - beta2^k)
//
// With beta2 = 0.999 the first five steps are plain momentum.
//
// The weights themselves jitter from step to step. Their moving average [eq:ema], ema <- rate·ema + (1 - rate)·theta, jitters less: samples
// come from it, and it carries both ends of L_CTM to time zero.
// =====================================================================================================================

CTM__DEF void ctm_opt_init(ctm_arena *a, ctm_opt *o, int kind, size_t len, double lr) {
    memset(o, 0, sizeof *o);
    o->kind = kind;
    o->lr = lr;
    o->beta1 = 0.9;
    o->beta2 = 0.999;
    o->eps = 1e-8;
    o->len = len;
    o->m = (ctm_real *)ctm_alloc(a, len * sizeof(ctm_real));
    o->v = (ctm_real *)ctm_alloc(a, len * sizeof(ctm_real));
}

typedef struct ctm__opt_job {
    const ctm__kernels *kernels; const ctm_opt *o; ctm_real *theta; const ctm_real *grad; double rate, root; int adaptive;
} ctm__opt_job;
static void ctm__opt_stretch(void *arg, size_t at, size_t n) {
    const ctm__opt_job *j = (const ctm__opt_job *)arg;
    const ctm_opt *o = j->o;
    j->kernels->adam(n, j->theta + at, j->grad + at, o->m + at, o->v + at, o->beta1, o->beta2, j->rate, j->root, o->eps, j->adaptive);
}

// [eq:radam]  theta <- theta - lr·r_k·m̂/(sqrt(v̂) + eps); Adam has r_k = 1, RAdam with rho_k <= 5 takes theta - lr·m̂.
CTM__DEF void ctm_opt_step(ctm_ctx *ctx, ctm_opt *o, ctm_real *theta, const ctm_real *grad) {
    double k = (double)++o->k, p1 = 1 - pow(o->beta1, k), p2 = 1 - pow(o->beta2, k);     // the bias corrections
    double rate = o->lr / p1, root = 1 / sqrt(p2);
    int adaptive = 1;
    ctm__opt_job j;
    if (o->kind == CTM_RADAM) {
        double rho_inf = 2 / (1 - o->beta2) - 1, rho = rho_inf - 2 * k * (1 - p2) / p2;
        if (rho > 5) {
            rate *= sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)) / root;
            root = 1;                                  // r_k·m̂·sqrt(1 - beta2^k)/(sqrt(v) + eps): where PyTorch puts eps
        } else {
            adaptive = 0;
        }
    }
    j.kernels = ctx->kernels; j.o = o; j.theta = theta; j.grad = grad; j.rate = rate; j.root = root; j.adaptive = adaptive;
    ctm__in_stretches(ctx, o->len, ctm__opt_stretch, &j);
}

typedef struct ctm__ema_job { const ctm__kernels *kernels; ctm_real *ema; const ctm_real *theta; double rate; } ctm__ema_job;
static void ctm__ema_stretch(void *arg, size_t at, size_t n) {
    const ctm__ema_job *j = (const ctm__ema_job *)arg;
    j->kernels->ema(n, j->ema + at, j->theta + at, j->rate);
}

// [eq:ema]  ema <- rate·ema + (1 - rate)·theta
CTM__DEF void ctm_ema_step(ctm_ctx *ctx, size_t len, ctm_real *ema, const ctm_real *theta, double rate) {
    ctm__ema_job j;
    j.kernels = ctx->kernels; j.ema = ema; j.theta = theta; j.rate = rate;
    ctm__in_stretches(ctx, len, ctm__ema_stretch, &j);
}

// =====================================================================================================================
// CHAPTER 11. DIFFUSION: NOISE, DENOISER, SCORE
//
// Add noise of standard deviation t to data: x_t = x_0 + t·eps [eq:x_t]. What can be said about x_0 when only x_t is known? The best
// guess, best in the sense of least squares, is the mean of all x_0 that may be behind x_t. It is called the denoiser,
// D(x,t) = E[x_0 | x_t = x]. A network learns it by being asked for x_0: whatever comes nearest to x_0 on average comes nearest to D.
//
// Why is that of use? Because the denoiser knows the score, the slope of the log-density of noised data:
//
//        grad log p_t(x) = (D(x,t) - x)/t²                                                       [eq:tweedie]
//
// Here is the proof. p_t is p_0 blurred by a Gaussian, p_t(x) = E N(x; x_0, t²). Its slope is E (x_0 - x)/t²·N(x; x_0, t²), which is p_t
// times the mean of (x_0 - x)/t² over the x_0 behind x. Divide by p_t.
//
// Noise levels span 0.002 to 80. Near the data small differences matter, far away they do not; so the grid of N levels is even in
// t^(1/rho), rho = 7, which puts most of them low:
//
//        t_i = ( T^(1/rho) + i/(N-1)·(sigma_min^(1/rho) - T^(1/rho)) )^rho,      i = 0 .. N-1     [eq:karras_grid]
//
// A network learns best when its inputs and its targets have about unit size, whatever t is. So it is wrapped in scalings, with
// sd = sigma_data:
//
//        g = c_skip(t)·x + c_out(t)·F(c_in(t)·x, t, s)        c_in = 1/sqrt(t² + sd²)            [eq:edm]
//        edm:   c_skip = sd²/(t² + sd²)                       c_out = t·sd/sqrt(t² + sd²)
//        cm:    the same with t - sigma_min for t, except under c_out's root, so that g = x at sigma_min
//        none:  c_skip = 0, c_out = 1, for networks that make g themselves, of c_in·x
// =====================================================================================================================

static void ctm__check_points(const char *op, const ctm_tensor *x, const ctm_tensor *t, int dim) {
    char rule[64];
    snprintf(rule, sizeof rule, "x must be [B,%d], t [B]", dim);
    CTM__SHAPES(x->ndim == 2 && x->shape[1] == dim && t->ndim == 1 && t->shape[0] == x->shape[0], op, rule, x, t);
}

static int ctm__same_noise(const ctm_noise *y, const ctm_noise *z) {
    return y->sigma_min == z->sigma_min && y->sigma_max == z->sigma_max && y->sigma_data == z->sigma_data && y->rho == z->rho &&
           y->N == z->N && y->inner == z->inner;
}

CTM__DEF ctm_noise ctm_noise_default(void) {
    ctm_noise z;
    z.sigma_min = 0.002;
    z.sigma_max = 80;
    z.sigma_data = 0.5;
    z.rho = 7;
    z.N = 18;
    z.inner = CTM_INNER_EDM;
    return z;
}

// The two roots of the formula, taken once for many levels.
typedef struct ctm__grid { const ctm_noise *z; double a, b; } ctm__grid;

static ctm__grid ctm__grid_of(const ctm_noise *z) {
    ctm__grid g;
    g.z = z;
    g.a = pow(z->sigma_max, 1 / z->rho);
    g.b = pow(z->sigma_min, 1 / z->rho);
    return g;
}

static double ctm__grid_level(const ctm__grid *g, double i) {
    double root = g->a + i / (g->z->N - 1) * (g->b - g->a), root2 = root * root;
    if (i <= 0) return g->z->sigma_max;                 // the ends exactly, not to rounding
    if (i >= g->z->N - 1) return g->z->sigma_min;
    return g->z->rho == 7 ? root2 * root2 * root2 * root : pow(root, g->z->rho);
}

// [eq:karras_grid]  t_i, for real i.
CTM__DEF double ctm_t_of_index(const ctm_noise *z, double i) {
    ctm__grid g = ctm__grid_of(z);
    return ctm__grid_level(&g, i);
}

CTM__DEF double ctm_index_of_t(const ctm_noise *z, double t) {
    double a = pow(z->sigma_max, 1 / z->rho), b = pow(z->sigma_min, 1 / z->rho);
    return (pow(t, 1 / z->rho) - a) / (b - a) * (z->N - 1);
}

CTM__DEF void ctm_karras_times(const ctm_noise *z, int n, double *t) {
    ctm_noise fine = *z;
    int i;
    fine.N = n;
    for (i = 0; i < n; i++) t[i] = ctm_t_of_index(&fine, i);
}

CTM__DEF double ctm_c_in(const ctm_noise *z, double t) { return 1 / sqrt(t * t + z->sigma_data * z->sigma_data); }

// [eq:edm]  c_skip and c_out of  g = c_skip·x + c_out·F(c_in·x, t, s)
CTM__DEF void ctm_inner_scalings(const ctm_noise *z, double t, double *c_skip, double *c_out) {
    double sd = z->sigma_data, q = z->inner == CTM_INNER_CM ? t - z->sigma_min : t;
    *c_skip = z->inner == CTM_INNER_NONE ? 0 : sd * sd / (q * q + sd * sd);
    *c_out = z->inner == CTM_INNER_NONE ? 1 : q * sd / sqrt(t * t + sd * sd);
}

// [eq:x_t]  x_t = x_0 + t·eps for rows [B,D] with the numbers first, first+1, .., and levels t [B].
static ctm_tensor *ctm__add_noise(ctm_tape *tp, const ctm_rng *rng, uint64_t step, uint64_t first, ctm_tensor *x0, ctm_tensor *t) {
    ctm_tensor *x_t = ctm_matrix(tp, "x_t", x0->shape[0], x0->shape[1]);
    size_t D = ctm__row_len(x0), i;
    ctm_normals(rng, step, first * D, x_t->len, x_t->data);
    for (i = 0; i < x_t->len; i++) x_t->data[i] = x0->data[i] + t->data[i / D] * x_t->data[i];
    return x_t;
}

// ---- exact denoisers
// Data that are a mixture of Gaussians stay one under noise: each component's variance grows from c² to v = c² + t². So
//        D(x,t) = a·x + (1-a)·sum_k r_k(x)·m_k,    a = c²/v,    r_k = softmax_k( ln w_k - |x - m_k|²/(2v) )       [eq:D_gmm]
// and its Jacobian is  a·I + (1-a)/v·Cov_r(m),  the covariance of the means under r. With c = 0 the mixture is a finite set
// of points: the exact empirical denoiser. No training is involved: this is how the project knows the truth.
typedef struct ctm__gmm {
    int dim, K;
    double c, *mean, *log_w;           // double for `exact`, ctm_real for `denoise`
    ctm_real *mean_r, *log_w_r;
} ctm__gmm;

// log of weight times density of component k at x, without the factor (2 pi v)^(-dim/2).
static double ctm__gmm_logit(const ctm__gmm *g, const double *x, double v, int k) {
    double q = 0;
    int d;
    for (d = 0; d < g->dim; d++) { double r = x[d] - g->mean[k * g->dim + d]; q += r * r; }
    return g->log_w[k] - q / (2 * v);
}

static double ctm__gmm_top(const ctm__gmm *g, const double *x, double v) {
    double top = ctm__gmm_logit(g, x, v, 0);
    int k;
    for (k = 1; k < g->K; k++) top = ctm__dmax(top, ctm__gmm_logit(g, x, v, k));
    return top;
}

// [eq:D_gmm]  D(x,t) = a·x + (1-a)·sum_k r_k·m_k, in double.
static void ctm__gmm_exact(const ctm_denoiser *self, const double *x, double t, double *D) {
    const ctm__gmm *g = (const ctm__gmm *)self->impl;
    double v = g->c * g->c + t * t, a = g->c * g->c / v, top = ctm__gmm_top(g, x, v), sum = 0;
    int k, d;
    for (d = 0; d < g->dim; d++) D[d] = 0;
    for (k = 0; k < g->K; k++) {
        double l = ctm__gmm_logit(g, x, v, k) - top, r;
        if (l < -45) continue;                          // adds less than 1e-19 of the whole
        r = exp(l);
        sum += r;
        for (d = 0; d < g->dim; d++) D[d] += r * g->mean[k * g->dim + d];
    }
    for (d = 0; d < g->dim; d++) D[d] = a * x[d] + (1 - a) * D[d] / sum;
}

static double ctm__gmm_log_density(const ctm_denoiser *self, const double *x, double t) {
    const ctm__gmm *g = (const ctm__gmm *)self->impl;
    double v = g->c * g->c + t * t, top = ctm__gmm_top(g, x, v), sum = 0;
    int k;
    for (k = 0; k < g->K; k++) sum += exp(ctm__gmm_logit(g, x, v, k) - top);
    return top + log(sum) - 0.5 * g->dim * log(2 * 3.14159265358979324 * v);
}

typedef struct ctm__gmm_job {
    const ctm__kernels *kernels; const ctm__gmm *g; const ctm_tensor *x, *t; ctm_tensor *out;
} ctm__gmm_job;
static void ctm__gmm_piece(void *arg, int p, void *scratch) {
    const ctm__gmm_job *j = (const ctm__gmm_job *)arg;
    int first = p * CTM__ROWS, n = ctm__imin(CTM__ROWS, j->x->shape[0] - first);
    size_t at = (size_t)first * (size_t)j->g->dim;
    j->kernels->mixture(n, j->g->dim, j->g->K, j->g->mean_r, j->g->log_w_r, j->g->c * j->g->c, j->x->data + at,
                             j->t->data + first, j->out->data + at, (ctm_real *)scratch);
}

// op: mixture    out = D(x,t) of [eq:D_gmm]         x [B,dim]  t [B]  out [B,dim]
// Backward       dx += a·dout + (1-a)/v·sum_k r_k (m_k - m̄)((m_k - m̄)·dout)       Saves the mixture     Test  op_mixture
static void ctm__gmm_backward(ctm_tape *tp, ctm_tensor *out) {
    ctm_tensor *x = out->src[0], *t = out->src[1];
    ctm_real *dx = ctm_grad(tp, x);
    const ctm__gmm *g = (const ctm__gmm *)(const void *)out->saved;
    int dim = g->dim, n, k, d;
    ctm_mark m = ctm_arena_mark(tp->arena);
    double *xd = (double *)ctm_alloc(tp->arena, (size_t)(3 * dim) * sizeof(double)), *bar = xd + dim, *acc = bar + dim;
    double *r = (double *)ctm_alloc(tp->arena, (size_t)g->K * sizeof(double));
    for (n = 0; dx && n < x->shape[0]; n++) {              // t is a constant: it gets no gradient
        const ctm_real *dout = out->grad + n * dim;
        double tt = (double)t->data[n], v = g->c * g->c + tt * tt, a = g->c * g->c / v, top, sum = 0;
        for (d = 0; d < dim; d++) { xd[d] = (double)x->data[n * dim + d]; bar[d] = acc[d] = 0; }
        top = ctm__gmm_top(g, xd, v);
        for (k = 0; k < g->K; k++) sum += r[k] = exp(ctm__gmm_logit(g, xd, v, k) - top);
        for (k = 0; k < g->K; k++) for (d = 0; d < dim; d++) bar[d] += r[k] / sum * g->mean[k * dim + d];
        for (k = 0; k < g->K; k++) {
            double along = 0;
            for (d = 0; d < dim; d++) along += (g->mean[k * dim + d] - bar[d]) * (double)dout[d];
            for (d = 0; d < dim; d++) acc[d] += r[k] / sum * along * (g->mean[k * dim + d] - bar[d]);
        }
        for (d = 0; d < dim; d++) dx[n * dim + d] += (ctm_real)(a * (double)dout[d] + (1 - a) / v * acc[d]);
    }
    ctm_arena_release(tp->arena, m);
}

static ctm_tensor *ctm__gmm_denoise(ctm_tape *tp, const ctm_denoiser *self, ctm_tensor *x, ctm_tensor *t) {
    const ctm__gmm *g = (const ctm__gmm *)self->impl;
    ctm__gmm_job j;
    ctm_tensor *out;
    ctm__check_points("mixture", x, t, g->dim);
    out = ctm__result(tp, "mixture", 2, x->shape[0], g->dim, x, t, NULL, NULL, ctm__gmm_backward);
    out->saved = (ctm_real *)self->impl;
    j.kernels = tp->ctx->kernels; j.g = g; j.x = x; j.t = t; j.out = out;
    ctm__parallel_scratch(tp->arena, ctm__row_pieces((size_t)x->shape[0]), (size_t)(2 * g->dim + g->K) * 16 * sizeof(ctm_real),
                          ctm__gmm_piece, &j);
    return ctm_done(out);
}

// [eq:D_gmm]  The denoiser of sum_k w_k·N(m_k, c²·I).
CTM__DEF ctm_denoiser *ctm_mixture(ctm_arena *a, int dim, int K, const double *mean, const double *weight, double c) {
    ctm_denoiser *D = (ctm_denoiser *)ctm_alloc(a, sizeof *D);
    ctm__gmm *g = (ctm__gmm *)ctm_alloc(a, sizeof *g);
    size_t n = (size_t)dim * (size_t)K, i;
    double sum = 0;
    int k;
    CTM__REQUIRE(dim > 0 && K > 0 && c >= 0, "ctm_mixture: %d components in %d dimensions with std %g?", K, dim, c);
    g->dim = dim; g->K = K; g->c = c;
    g->mean = (double *)ctm_alloc(a, n * sizeof(double));
    g->mean_r = (ctm_real *)ctm_alloc(a, n * sizeof(ctm_real));
    g->log_w = (double *)ctm_alloc(a, (size_t)K * sizeof(double));
    g->log_w_r = (ctm_real *)ctm_alloc(a, (size_t)K * sizeof(ctm_real));
    for (i = 0; i < n; i++) g->mean_r[i] = (ctm_real)(g->mean[i] = mean[i]);
    for (k = 0; k < K; k++) sum += weight ? weight[k] : 1;
    for (k = 0; k < K; k++) g->log_w_r[k] = (ctm_real)(g->log_w[k] = log((weight ? weight[k] : 1) / sum));
    D->name = "mixture";
    D->dim = dim;
    D->impl = g;
    D->denoise = ctm__gmm_denoise;
    D->exact = ctm__gmm_exact;
    D->log_density = ctm__gmm_log_density;
    return D;
}

CTM__DEF ctm_denoiser *ctm_empirical(ctm_arena *a, int dim, int n, const double *rows) {
    ctm_denoiser *D = ctm_mixture(a, dim, n, rows, NULL, 0);
    D->name = "empirical";
    return D;
}

static ctm_tensor *ctm__net_denoise(ctm_tape *tp, const ctm_denoiser *self, ctm_tensor *x, ctm_tensor *t) {
    return ctm_D_theta(tp, (ctm_net *)self->impl, x, t);
}

CTM__DEF ctm_denoiser *ctm_net_denoiser(ctm_arena *a, ctm_net *net) {
    ctm_denoiser *D = (ctm_denoiser *)ctm_alloc(a, sizeof *D);
    D->name = net->with_s ? "ctm at s = t" : net->kind;
    D->dim = net->dim;
    D->noise = &net->noise;
    D->no_score = !net->with_s && net->noise.inner == CTM_INNER_CM;
    D->impl = net;
    D->denoise = ctm__net_denoise;
    return D;
}

// Tensors of per-row coefficients, [B].
static ctm_tensor *ctm__coefficients(ctm_tape *tp, const char *name, const ctm_tensor *t) { return ctm_vector(tp, name, t->shape[0]); }

// [eq:tweedie]  score = (D(x,t) - x)/t²
CTM__DEF ctm_tensor *ctm_score(ctm_tape *tp, const ctm_denoiser *D, ctm_tensor *x, ctm_tensor *t) {
    ctm_tensor *d = ctm_sub(tp, D->denoise(tp, D, x, t), x), *a = ctm__coefficients(tp, "1/t^2", t);
    int i;
    for (i = 0; i < t->shape[0]; i++) a->data[i] = 1 / (t->data[i] * t->data[i]);
    return ctm_name(ctm_mix_rows(tp, a, d, NULL, NULL), "score");                // D - x first: exactly 0 where they are equal
}

// =====================================================================================================================
// CHAPTER 12. THE ODE AND ITS SOLVERS
//
// The score says where data become more likely. Following it down to noise level zero leads from noise to data, along the paths of
//
//        dx/dt = (x - D(x,t))/t                                                                  [eq:pf_ode]
//
// the probability-flow ODE. Why does it lead to samples and not just to the likeliest point? More noise blurs the density as heat
// spreads: dp/dt = t·Laplace(p). Points that move with velocity v change their density by dp/dt = -div(p·v). With v = -t·grad log p the two
// are the same, because p·grad log p = grad p; and by [eq:tweedie] that v is (x - D)/t. So points that are distributed as p_t, and then
// follow the ODE, are distributed as p_s at every other level s.
//
// A step of Euler's method from t to t' < t takes the slope at t. Heun's method [eq:heun] then averages it with the slope at the end:
//
//        d = (x - D(x,t))/t       y = x + (t'-t)·d                  Euler: error of order (t'-t)² a step
//        d' = (y - D(y,t'))/t'    x' = x + (t'-t)·(d + d')/2        Heun: order (t'-t)³, for two evaluations
//
// Solver(x_t, t -> u) takes such steps along the grid. The rows of a batch travel different distances. They are sorted by
// their number of steps, so that those still travelling are always the first n rows and no evaluation is wasted.
// =====================================================================================================================

// One step, by [eq:pf_ode]'s slope (x - D)/t and [eq:heun]'s mean of two, for all rows of x (in place) from levels t to t_next.
static void ctm__solver_step(ctm_tape *tp, const ctm_denoiser *D, int method, ctm_tensor *x, ctm_tensor *t, ctm_tensor *t_next) {
    int B = x->shape[0], dim = x->shape[1], i, d;
    ctm_tensor *D_t = D->denoise(tp, D, x, t), *y = ctm_matrix(tp, "y", B, dim), *D_y;
    for (i = 0; i < B; i++)
        for (d = i * dim; d < (i + 1) * dim; d++)
            y->data[d] = x->data[d] + (t_next->data[i] - t->data[i]) * ((x->data[d] - D_t->data[d]) / t->data[i]);
    if (method == CTM_EULER) {
        memcpy(x->data, y->data, x->len * sizeof(ctm_real));
        return;
    }
    D_y = D->denoise(tp, D, y, t_next);
    for (i = 0; i < B; i++)
        for (d = i * dim; d < (i + 1) * dim; d++) {
            ctm_real slope = (x->data[d] - D_t->data[d]) / t->data[i], slope_y = (y->data[d] - D_y->data[d]) / t_next->data[i];
            x->data[d] += (t_next->data[i] - t->data[i]) * (slope + slope_y) / 2;
        }
}

// [eq:heun]  x_u = Solver(x_t, t -> u) along [eq:pf_ode], t and u given as grid indices.
CTM__DEF ctm_tensor *ctm_solve(ctm_tape *tp, const ctm_denoiser *D, const ctm_noise *z, int method, ctm_tensor *x,
                               const double *from, const double *to, int substeps) {
    int B = x->shape[0], dim = x->shape[1], recording = tp->recording, most = 0, i, j, n;
    size_t row = (size_t)dim * sizeof(ctm_real);
    ctm_tensor *out, *sorted;
    ctm__grid grid = ctm__grid_of(z);
    ctm_real *level;
    int *steps, *order;
    ctm_rows all;
    ctm_mark m;
    CTM__REQUIRE(substeps > 0 && x->ndim == 2, "ctm_solve: \"%s\" must be [B,D] and substeps positive", x->name);
    CTM__REQUIRE(method == CTM_HEUN || method == CTM_EULER, "ctm_solve: %d is neither CTM_HEUN nor CTM_EULER", method);
    out = ctm_matrix(tp, "x_u", B, dim);
    m = ctm_arena_mark(tp->arena);
    steps = (int *)ctm_alloc(tp->arena, (size_t)B * sizeof(int));
    order = (int *)ctm_alloc(tp->arena, (size_t)B * sizeof(int));
    tp->recording = 0;

    // Sort the rows by their number of steps, most first.
    for (i = 0; i < B; i++) {
        CTM__REQUIRE(from[i] >= 0 && from[i] <= to[i] && to[i] <= z->N - 1,
                     "ctm_solve: row %d cannot go from index %g to %g", i, from[i], to[i]);
        steps[i] = (int)ceil((to[i] - from[i]) * substeps - 1e-9);
        if (steps[i] > most) most = steps[i];
    }
    for (n = 0, j = most; j >= 0; j--) for (i = 0; i < B; i++) if (steps[i] == j) order[n++] = i;
    sorted = ctm_matrix(tp, "x", B, dim);
    for (i = 0; i < B; i++) memcpy(sorted->data + i * dim, x->data + order[i] * dim, row);
    all = ctm_pick_rows(tp, order, B);

    // Step j moves the first n rows, those with more than j steps, from level[] to the next node.
    level = (ctm_real *)ctm_alloc(tp->arena, (size_t)B * sizeof(ctm_real));
    for (i = 0; i < B; i++) level[i] = (ctm_real)ctm__grid_level(&grid, from[order[i]]);
    for (j = 0, n = B; j < most; j++) {
        ctm_mark before = ctm_arena_mark(tp->arena);
        ctm_tensor *t, *t_next;
        while (n > 0 && steps[order[n - 1]] <= j) n--;
        t = ctm_vector(tp, "t", n);
        t_next = ctm_vector(tp, "t_next", n);
        for (i = 0; i < n; i++) {
            int r = order[i];
            t->data[i] = level[i];
            t_next->data[i] = level[i] = (ctm_real)ctm__grid_level(&grid, from[r] + (to[r] - from[r]) * (j + 1) / steps[r]);
        }
        ctm__solver_step(tp, D, method, ctm_rows_of(tp, sorted, n), t, t_next);
        ctm_arena_release(tp->arena, before);
    }
    for (i = 0; i < B; i++) memcpy(out->data + order[i] * dim, sorted->data + i * dim, row);
    ctm_arena_release(tp->arena, m);
    tp->rows = all;
    tp->recording = recording;
    return out;
}

// ---- the exact flow
// With tau = ln t the ODE [eq:pf_ode] becomes
//
//        dx/dtau = x - D(x, e^tau)                                                               [eq:flow]
//
// whose slope is about as large at every level as at any other, so that a method which chooses its own steps gets along with few.
// This one is Dormand and Prince's: six slopes make a step of fifth order, and a seventh, which the next step uses as its first, makes
// an estimate of the error. A step whose error is too large is tried again, shorter. Every row has its own tau and its own step
// length, so its result does not depend on the other rows. (Chapter 19 carries likelihoods upwards in the same way.)

typedef struct ctm__ode {
    void      (*slope)(const void *arg, size_t n, const double *x, const double *t, double *f);     // dx/dtau of n rows at levels t
    const void *arg;
    size_t      n, dim;
    double      tol, shortest;     // the error allowed in a step, relative to 0.1 + |x|; no step is made shorter than this one
    double     *x, *tau, *h;       // where the rows are, and the step that each would like to make next, negative towards data
    double     *step, *t, *y, *k[7];   // the step that is tried, the levels of a slope, where the step ends, its slopes
} ctm__ode;

static size_t ctm__ode_room(size_t n, size_t dim) { return n * (9 * dim + 4); }        // in doubles

// All rows at x [n,dim] and tau, with a first step h; room is for ctm__ode_room(n,dim) numbers.
static void ctm__ode_begin(ctm__ode *ode, const double *x, double tau, double h, double *room) {
    size_t n = ode->n, len = n * ode->dim, i;
    int r;
    for (r = 0; r < 7; r++, room += len) ode->k[r] = room;
    ode->x = room; ode->y = ode->x + len; ode->tau = ode->y + len; ode->h = ode->tau + n; ode->step = ode->h + n; ode->t = ode->step + n;
    memcpy(ode->x, x, len * sizeof(double));
    for (i = 0; i < n; i++) { ode->tau[i] = tau; ode->h[i] = h; ode->t[i] = exp(tau); }
    ode->slope(ode->arg, n, ode->x, ode->t, ode->k[0]);
}

static void ctm__ode_try(ctm__ode *ode) {
    static const double a[6][6] = {
        {1.0 / 5, 0, 0, 0, 0, 0}, {3.0 / 40, 9.0 / 40, 0, 0, 0, 0}, {44.0 / 45, -56.0 / 15, 32.0 / 9, 0, 0, 0},
        {19372.0 / 6561, -25360.0 / 2187, 64448.0 / 6561, -212.0 / 729, 0, 0},
        {9017.0 / 3168, -355.0 / 33, 46732.0 / 5247, 49.0 / 176, -5103.0 / 18656, 0},
        {35.0 / 384, 0, 500.0 / 1113, 125.0 / 192, -2187.0 / 6784, 11.0 / 84}};
    static const double c[6] = {1.0 / 5, 3.0 / 10, 4.0 / 5, 8.0 / 9, 1, 1};
    size_t i;
    int s, r;
    for (s = 0; s < 6; s++) {
        for (i = 0; i < ode->n * ode->dim; i++) {
            double sum = 0;
            for (r = 0; r <= s; r++) sum += a[s][r] * ode->k[r][i];
            ode->y[i] = ode->x[i] + ode->step[i / ode->dim] * sum;
        }
        for (i = 0; i < ode->n; i++) ode->t[i] = exp(ode->tau[i] + c[s] * ode->step[i]);
        ode->slope(ode->arg, ode->n, ode->y, ode->t, ode->k[s + 1]);
    }
}

// Takes the step that a row has tried, if its error allows, and chooses the length of the next one.
static void ctm__ode_judge(ctm__ode *ode, size_t row, double end) {
    static const double e[7] = {71.0 / 57600, 0, -71.0 / 16695, 71.0 / 1920, -17253.0 / 339200, 22.0 / 525, -1.0 / 40};
    size_t dim = ode->dim, first = row * dim, d;
    double step = ode->step[row], err = 0;
    int r;
    for (d = first; d < first + dim; d++) {
        double sum = 0;
        for (r = 0; r < 7; r++) sum += e[r] * ode->k[r][d];
        sum *= step / (ode->tol * (0.1 + fabs(ode->x[d])));
        err += sum * sum;
    }
    err = sqrt(err / (double)dim);
    if (!ctm_is_finite(err) || err <= 1 || fabs(step) <= ode->shortest) {
        memcpy(ode->x + first, ode->y + first, dim * sizeof(double));
        memcpy(ode->k[0] + first, ode->k[6] + first, dim * sizeof(double));
        ode->tau[row] = ctm_is_finite(err) ? ode->tau[row] + step : end;   // a point that is no number stays none
    }
    if (ctm_is_finite(err) && (err > 1 || step == ode->h[row])) {          // a step cut short by the end says nothing about the next
        double next = fabs(step) * ctm__dmin(5, ctm__dmax(0.2, 0.9 * pow(err + 1e-12, -0.2)));
        ode->h[row] = copysign(ctm__dmax(next, ode->shortest), step);
    }
}

// Carries all rows on to tau = end. Rows that have arrived wait for the rest, with steps of length zero.
static void ctm__ode_walk(ctm__ode *ode, double end) {
    size_t i, moving;
    do {
        for (moving = i = 0; i < ode->n; i++) {
            double left = end - ode->tau[i];
            ode->step[i] = fabs(left) <= 1e-12 ? 0 : fabs(ode->h[i]) < fabs(left) ? ode->h[i] : left;
            moving += ode->step[i] != 0;
        }
        if (moving) ctm__ode_try(ode);
        for (i = 0; i < ode->n; i++) if (ode->step[i] != 0) ctm__ode_judge(ode, i, end);
    } while (moving);
}

enum { CTM__FLOW_DIM = 64, CTM__FLOW_PIECE = 64 };     // dimensions at most; points for one thread

static void ctm__flow_slope(const void *arg, size_t n, const double *x, const double *t, double *f) {
    const ctm_denoiser *D = (const ctm_denoiser *)arg;
    size_t dim = (size_t)D->dim, i;
    for (i = 0; i < n; i++) D->exact(D, x + i * dim, t[i], f + i * dim);
    for (i = 0; i < n * dim; i++) f[i] = x[i] - f[i];
}

// One point from t through the levels s[0..k-1], each result `stride` numbers behind the one before.
static void ctm__flow_point(const ctm_denoiser *D, const double *x, double t, int k, const double *s, double tol, double *out,
                            size_t stride) {
    double room[9 * CTM__FLOW_DIM + 4];
    ctm__ode ode;
    int j;
    ode.slope = ctm__flow_slope; ode.arg = D; ode.n = 1; ode.dim = (size_t)D->dim; ode.tol = tol; ode.shortest = 1e-7;
    ctm__ode_begin(&ode, x, log(t), -0.05, room);
    for (j = 0; j < k; j++) {
        ctm__ode_walk(&ode, log(s[j]));
        memcpy(out + (size_t)j * stride, ode.x, ode.dim * sizeof(double));
    }
}

typedef struct ctm__flow_job {
    const ctm_denoiser *D; size_t n; const double *x; double t, tol; int k; const double *s; double *out;
} ctm__flow_job;
static void ctm__flow_piece(void *arg, int piece) {
    const ctm__flow_job *job = (const ctm__flow_job *)arg;
    size_t dim = (size_t)job->D->dim, first = (size_t)piece * CTM__FLOW_PIECE, i;
    for (i = first; i < first + CTM__FLOW_PIECE && i < job->n; i++)
        ctm__flow_point(job->D, job->x + i * dim, job->t, job->k, job->s, job->tol, job->out + i * dim, job->n * dim);
}

// [eq:flow]  n points through k levels, each point by itself.
CTM__DEF void ctm_exact_flow(ctm_ctx *ctx, const ctm_denoiser *D, size_t n, const double *x, double t, int k, const double *s,
                             double tol, double *out) {
    ctm__flow_job job;
    int i;
    CTM__REQUIRE(D->exact != NULL, "ctm_exact_flow: the denoiser \"%s\" has no exact formula", D->name);
    CTM__REQUIRE(D->dim <= CTM__FLOW_DIM, "ctm_exact_flow: more than %d dimensions", CTM__FLOW_DIM);
    CTM__REQUIRE(ctm_is_finite(t) && t > 0, "ctm_exact_flow: the noise level t = %g must be positive", t);
    CTM__REQUIRE(tol >= 1e-15, "ctm_exact_flow: no step can be as exact as the tolerance %g; it must be at least 1e-15", tol);
    for (i = 0; i < k; i++)
        CTM__REQUIRE(ctm_is_finite(s[i]) && s[i] > 0 && s[i] <= (i ? s[i - 1] : t),
                     "ctm_exact_flow: level %d is %g; levels must be positive and decrease from t = %g", i, s[i], t);
    job.D = D; job.n = n; job.x = x; job.t = t; job.tol = tol; job.k = k; job.s = s; job.out = out;
    ctm_parallel_for(ctx, (int)((n + CTM__FLOW_PIECE - 1) / CTM__FLOW_PIECE), ctm__flow_piece, &job);
}
// =====================================================================================================================
// CHAPTER 13. THE JUMP
//
// The solution of the ODE from t to s can be written as a mixture of x and of a function g:
//
//        G(x,t,s) = (s/t)·x + (1 - s/t)·g(x,t,s)                                                 [eq:G]
//        g(x,t,s) = x + t/(t-s) · integral from t to s of (x_r - D(x_r,r))/r dr                  [eq:g]
//
// where x_r is the point at level r on the path through x. So g is x minus t times the mean slope between t and s. Why this form? Three
// reasons. G(x,t,t) = x holds whatever the network says, as the boundary condition of a jump should. As s approaches t, the mean slope
// becomes the slope at t, and g becomes the denoiser: g(x,t,t) = D(x,t). So one network is a denoiser, a score and a jump. And with D
// in the place of g the formula is one step of Euler's method: all that a CTM adds is that g may depend on s, so that the step is exact
// however long it is.
// =====================================================================================================================

// [eq:g] [eq:edm]  The integral is what g should be; the network that learns it is g(x,t,s) = c_skip(t)·x + c_out(t)·F(c_in(t)·x, t, s).
CTM__DEF ctm_tensor *ctm_g_theta(ctm_tape *tp, ctm_net *net, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s) {
    ctm_tensor *c_in = ctm__coefficients(tp, "c_in", t), *c_skip = ctm__coefficients(tp, "c_skip", t);
    ctm_tensor *c_out = ctm__coefficients(tp, "c_out", t), *scaled, *F;
    int i;
    ctm__check_points("ctm_g_theta", x, t, net->dim);
    CTM__REQUIRE(!net->with_s || s, "ctm_g_theta: this network needs s");
    if (net->with_s) CTM__SHAPES(s->ndim == 1 && s->shape[0] == x->shape[0], "ctm_g_theta", "s must be [B] like t", t, s);
    for (i = 0; i < t->shape[0]; i++) {
        double skip, out;
        ctm_inner_scalings(&net->noise, (double)t->data[i], &skip, &out);
        c_in->data[i] = (ctm_real)ctm_c_in(&net->noise, (double)t->data[i]);
        c_skip->data[i] = (ctm_real)skip;
        c_out->data[i] = (ctm_real)out;
    }
    scaled = ctm_mix_rows(tp, c_in, x, NULL, NULL);                              // c_in·x
    F = net->forward(tp, net, scaled, t, net->with_s ? s : NULL);                // F(c_in·x, t, s)
    return ctm_name(ctm_mix_rows(tp, c_skip, x, c_out, F), "g");                 // c_skip·x + c_out·F
}

// Rows with s = t stay where they are, so the network is asked about the others only: about half of the authors' targets have
// u = s, and all jumps that end at sigma_min have nothing left for the second jump, to time zero, to do.
typedef struct ctm__moving { int n; const int *index; ctm_tensor *x, *t, *s; ctm_rows all; } ctm__moving;

static ctm__moving ctm__moving_rows(ctm_tape *tp, const ctm_net *net, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s) {
    int B = t->shape[0], *index = (int *)ctm_alloc_raw(tp->arena, ((size_t)B + 1) * sizeof(int)), i;
    ctm__moving m;
    m.n = 0;
    m.index = index;
    for (i = 0; i < B; i++) {
        CTM__REQUIRE(s->data[i] <= t->data[i], "ctm_G_theta: row %d would jump up, from %g to %g", i,
                     (double)t->data[i], (double)s->data[i]);
        CTM__REQUIRE((double)s->data[i] >= net->noise.sigma_min * (1 - 1e-4),
                     "ctm_G_theta: row %d would jump to %g, but the network's time zero is sigma_min = %g", i, (double)s->data[i],
                     net->noise.sigma_min);
        if (s->data[i] < t->data[i]) index[m.n++] = i;
    }
    if (tp->rows.dropout) tp->drops = (tp->drops / 128 + 1) * 128;         // every jump has 128 masks of its own, even if nothing moves
    m.x = x; m.t = t; m.s = s;
    m.all = tp->rows;
    if (m.n == 0 || m.n == B) return m;
    m.x = ctm_gather_rows(tp, x, index, m.n);
    m.t = ctm_gather_rows(tp, t, index, m.n);
    m.s = ctm_gather_rows(tp, s, index, m.n);
    ctm_pick_rows(tp, index, m.n);
    return m;
}

// [eq:G]  G(x,t,s) = (s/t)·x + (1 - s/t)·g(x,t,s). The factor 1 - s/t is computed as (t - s)/t, which loses no digits where s is near t.
CTM__DEF ctm_tensor *ctm_G_theta(ctm_tape *tp, ctm_net *net, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s) {
    ctm__moving m;
    ctm_tensor *C_skip, *C_out, *g, *G;
    int i;
    CTM__REQUIRE(net->with_s, "ctm_G_theta: a network without s cannot jump (\"%s\")", net->kind);
    CTM__SHAPES(t->ndim == 1 && s->ndim == 1 && t->len == s->len && x->shape[0] == t->shape[0], "ctm_G_theta", "t and s must be [B]", t, s);
    m = ctm__moving_rows(tp, net, x, t, s);
    if (m.n == 0) return x;
    C_skip = ctm__coefficients(tp, "s/t", m.t);
    C_out = ctm__coefficients(tp, "1-s/t", m.t);
    for (i = 0; i < m.n; i++) {
        double from = (double)m.t->data[i], to = (double)m.s->data[i];
        C_skip->data[i] = (ctm_real)(to / from);
        C_out->data[i] = (ctm_real)((from - to) / from);
    }
    g = ctm_g_theta(tp, net, m.x, m.t, m.s);
    G = ctm_name(ctm_mix_rows(tp, C_skip, m.x, C_out, g), "G");                  // (s/t)·x + (1 - s/t)·g
    tp->rows = m.all;
    return m.n == t->shape[0] ? G : ctm_name(ctm_scatter_rows(tp, x, G, m.index), "G");
}

// [eq:D_from_g]  D(x,t) = g(x,t,t)
CTM__DEF ctm_tensor *ctm_D_theta(ctm_tape *tp, ctm_net *net, ctm_tensor *x, ctm_tensor *t) {
    return ctm_name(ctm_g_theta(tp, net, x, t, t), "D");
}

static ctm_tensor *ctm__net_jump(ctm_tape *tp, const ctm_jump *self, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s) {
    return ctm_G_theta(tp, (ctm_net *)self->impl, x, t, s);
}

CTM__DEF ctm_jump *ctm_net_jump(ctm_arena *a, ctm_net *net) {
    ctm_jump *G = (ctm_jump *)ctm_alloc(a, sizeof *G);
    G->name = "ctm";
    G->dim = net->dim;
    G->noise = net->noise;
    G->impl = net;
    G->jump = ctm__net_jump;
    return G;
}

typedef struct ctm__flow_rows { const ctm_denoiser *D; const ctm_tensor *x, *t, *s; ctm_tensor *out; } ctm__flow_rows;
static void ctm__flow_row(void *arg, int i) {
    const ctm__flow_rows *j = (const ctm__flow_rows *)arg;
    double x[CTM__FLOW_DIM], y[CTM__FLOW_DIM], s = (double)j->s->data[i];
    int dim = j->D->dim, d;
    memset(x, 0, sizeof x);
    for (d = 0; d < dim; d++) x[d] = (double)j->x->data[i * dim + d];
    ctm__flow_point(j->D, x, (double)j->t->data[i], 1, &s, 1e-9, y, 0);
    for (d = 0; d < dim; d++) j->out->data[i * dim + d] = (ctm_real)y[d];
}

static ctm_tensor *ctm__flow_jump(ctm_tape *tp, const ctm_jump *self, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s) {
    ctm__flow_rows j;
    int i;
    for (i = 0; i < x->shape[0]; i++)
        CTM__REQUIRE(s->data[i] > 0 && s->data[i] <= t->data[i],
                     "ctm_flow_jump: row %d cannot jump from %g to %g", i, (double)t->data[i], (double)s->data[i]);
    j.D = (const ctm_denoiser *)self->impl;
    j.x = x; j.t = t; j.s = s;
    j.out = ctm_matrix(tp, "G", x->shape[0], x->shape[1]);
    ctm_parallel_for(tp->ctx, x->shape[0], ctm__flow_row, &j);
    return j.out;
}

CTM__DEF ctm_jump *ctm_flow_jump(ctm_arena *a, const ctm_denoiser *D, const ctm_noise *z) {
    ctm_jump *G = (ctm_jump *)ctm_alloc(a, sizeof *G);
    CTM__REQUIRE(D->exact != NULL, "ctm_flow_jump: the denoiser \"%s\" has no exact formula", D->name);
    CTM__REQUIRE(D->dim <= CTM__FLOW_DIM, "ctm_flow_jump: %d dimensions, but at most %d can be", D->dim, CTM__FLOW_DIM);
    G->name = "exact flow";
    G->dim = D->dim;
    G->noise = *z;
    G->impl = (void *)(size_t)D;
    G->jump = ctm__flow_jump;
    return G;
}

// =====================================================================================================================
// CHAPTER 14. SETTINGS
//
// A training run is decided by some fifty choices. Where a choice is a formula, such as which jumps are practised, the setting is a
// function, and a new idea is a new function in your own file: the training step stays as it is. All other settings are numbers. There
// are no defaults without a name: a recipe (chapter 15) fills in every setting.
//
// The table below is the one list of them. Checks, printing, command lines and the metadata of files are made from it, so a new setting
// is a field of ctm_config and a line here. Every line holds the value that it has in the paper's recipe, and the smallest and the
// largest value that any recipe may give it.
// =====================================================================================================================

// A number, text or function in a struct: where it stands and of what type it is.
// i int, l long, u uint64_t, d double, s text of 32 bytes, f function.
typedef struct ctm__field { const char *name; char type; size_t at; } ctm__field;
typedef struct ctm__setting { ctm__field field; double paper, least, most; } ctm__setting;

#define CTM__SETTING(name, type, paper, least, most) {{#name, type, offsetof(ctm_config, name)}, paper, least, most}
enum { CTM__MANY = 1 << 30 };
#define CTM__BELOW_1 (1 - DBL_EPSILON)
static const ctm__setting ctm__settings[] = {
    CTM__SETTING(recipe, 's', 0, 0, 0),
    CTM__SETTING(noise.sigma_min, 'd', 0.002, 1e-12, 1e12), CTM__SETTING(noise.sigma_max, 'd', 80, 1e-12, 1e12),
    CTM__SETTING(noise.sigma_data, 'd', 0.5, 1e-12, 1e12),  CTM__SETTING(noise.rho, 'd', 7, 0.1, 1e6),
    CTM__SETTING(noise.N, 'i', 18, 2, 100000),              CTM__SETTING(noise.inner, 'i', CTM_INNER_EDM, 0, CTM_INNER_NONE),
    CTM__SETTING(hidden, 'i', 64, 1, 65536), CTM__SETTING(layers, 'i', 4, 1, 64), CTM__SETTING(embed, 'i', 32, 1, 65536),
    CTM__SETTING(size, 'i', 0, 0, 65536), CTM__SETTING(channels, 'i', 0, 0, 65536), CTM__SETTING(patch, 'i', 1, 1, 65536),
    CTM__SETTING(model_channels, 'i', 32, 1, 65536),
    CTM__SETTING(channel_mult[0], 'i', 1, 0, 65536), CTM__SETTING(channel_mult[1], 'i', 2, 0, 65536),
    CTM__SETTING(channel_mult[2], 'i', 2, 0, 65536), CTM__SETTING(channel_mult[3], 'i', 0, 0, 65536),
    CTM__SETTING(channel_mult[4], 'i', 0, 0, 65536), CTM__SETTING(channel_mult[5], 'i', 0, 0, 65536),
    CTM__SETTING(channel_mult[6], 'i', 0, 0, 65536), CTM__SETTING(channel_mult[7], 'i', 0, 0, 65536),
    CTM__SETTING(num_blocks, 'i', 1, 0, 65536),
    CTM__SETTING(attn[0], 'i', 16, 0, 65536), CTM__SETTING(attn[1], 'i', 0, 0, 65536),
    CTM__SETTING(attn[2], 'i', 0, 0, 65536), CTM__SETTING(attn[3], 'i', 0, 0, 65536),
    CTM__SETTING(dropout, 'd', 0, 0, CTM__BELOW_1),
    CTM__SETTING(classes, 'i', 0, 0, 1000000), CTM__SETTING(label_dropout, 'd', 0, 0, 1),
    CTM__SETTING(times, 'f', 0, 0, 0), CTM__SETTING(teach, 'f', 0, 0, 0), CTM__SETTING(substeps, 'i', 1, 1, CTM__MANY),
    CTM__SETTING(target_ema, 'i', 1, 0, 1), CTM__SETTING(share_at_s, 'd', 0, 0, 1),
    CTM__SETTING(distance, 'i', CTM_L2, 0, CTM_HUBER), CTM__SETTING(huber_c, 'd', 0.03, 0, 1e30), CTM__SETTING(weight, 'f', 0, 0, 0),
    CTM__SETTING(aim, 'f', 0, 0, 0), CTM__SETTING(level, 'f', 0, 0, 0), CTM__SETTING(diagonal_batch, 'i', 256, 0, CTM__MANY),
    CTM__SETTING(lambda_dsm, 'd', 1, 0, 1e30), CTM__SETTING(adaptive, 'i', 1, 0, 1),
    CTM__SETTING(gan, 'i', CTM_GAN_NONE, 0, CTM_GAN_MINIMAX), CTM__SETTING(gan_period, 'i', 2, 1, 1000000),
    CTM__SETTING(gan_start, 'l', 0, 0, 2147483647.0), CTM__SETTING(lambda_gan, 'd', 1, 0, 1e30),
    CTM__SETTING(gan_hidden, 'i', 64, 1, 65536), CTM__SETTING(gan_layers, 'i', 3, 1, 64), CTM__SETTING(gan_lr, 'd', 2e-3, 0, 1e30),
    CTM__SETTING(optimiser, 'i', CTM_RADAM, 0, CTM_RADAM), CTM__SETTING(lr, 'd', 5e-3, 0, 1e30),
    CTM__SETTING(beta2, 'd', 0.999, 0, CTM__BELOW_1), CTM__SETTING(clip, 'd', 0, 0, 1e30),
    CTM__SETTING(warmup, 'd', 0, 0, 1), CTM__SETTING(final_lr, 'd', 0, 0, 1),
    CTM__SETTING(ema_rate[0], 'd', 0.999, 1e-6, 1), CTM__SETTING(ema_rate[1], 'd', 0, 0, 1),
    CTM__SETTING(ema_rate[2], 'd', 0, 0, 1), CTM__SETTING(ema_rate[3], 'd', 0, 0, 1), CTM__SETTING(ema_warmup, 'i', 1, 0, 1),
    CTM__SETTING(batch, 'i', 256, 1, CTM__MANY), CTM__SETTING(shards, 'i', 2, 1, CTM__MANY),
    CTM__SETTING(steps, 'l', 20000, 0, 2147483647.0), CTM__SETTING(seed, 'u', 0, 0, 0)};
enum { CTM__SETTINGS = (int)(sizeof ctm__settings / sizeof ctm__settings[0]) };

// The functions that a setting can name. Any other is the user's own.
typedef void (*ctm__function)(void);
static const struct ctm__named { const char *setting, *name; ctm__function function; } ctm__functions[] = {
    {"times", "paper", (ctm__function)ctm_times_paper},     {"times", "local", (ctm__function)ctm_times_local},
    {"times", "global", (ctm__function)ctm_times_global},   {"times", "authors", (ctm__function)ctm_times_authors},
    {"times", "points", (ctm__function)ctm_times_points},   {"times", "images", (ctm__function)ctm_times_images},
    {"times", "cm", (ctm__function)ctm_times_cm},
    {"teach", "solver", (ctm__function)ctm_teach_solver},   {"teach", "jump", (ctm__function)ctm_teach_jump},
    {"teach", "jumps", (ctm__function)ctm_teach_jumps},     {"teach", "data", (ctm__function)ctm_teach_data},
    {"weight", "uniform", (ctm__function)ctm_weight_uniform}, {"weight", "snr", (ctm__function)ctm_weight_snr},
    {"weight", "truncated_snr", (ctm__function)ctm_weight_truncated_snr}, {"weight", "karras", (ctm__function)ctm_weight_karras},
    {"weight", "uniform_g", (ctm__function)ctm_weight_uniform_g},
    {"aim", "data", (ctm__function)ctm_aim_data},           {"aim", "teacher", (ctm__function)ctm_aim_teacher},
    {"level", "edm", (ctm__function)ctm_level_edm},         {"level", "authors", (ctm__function)ctm_level_authors},
    {"level", "uniform", (ctm__function)ctm_level_uniform}};
enum { CTM__FUNCTIONS = (int)(sizeof ctm__functions / sizeof ctm__functions[0]) };

// The name of the function that a setting has: "none" if it is NULL, "own" if it is the user's.
static const char *ctm__function_name(const ctm_config *cfg, const ctm__field *f) {
    ctm__function function;
    int i;
    memcpy(&function, (const char *)cfg + f->at, sizeof function);
    for (i = 0; i < CTM__FUNCTIONS; i++)
        if (strcmp(ctm__functions[i].setting, f->name) == 0 && ctm__functions[i].function == function) return ctm__functions[i].name;
    return function ? "own" : "none";
}

static const ctm__setting *ctm__setting_named(const char *name) {
    int i;
    for (i = 0; i < CTM__SETTINGS; i++) if (strcmp(ctm__settings[i].field.name, name) == 0) return &ctm__settings[i];
    return NULL;
}

static int ctm__is_own(const ctm_config *cfg, const char *setting) {
    const ctm__setting *s = ctm__setting_named(setting);
    return s && strcmp(ctm__function_name(cfg, &s->field), "own") == 0;
}

static void ctm__field_text(const void *of, const ctm__field *f, int digits, char text[40]) {
    const char *at = (const char *)of + f->at;
    switch (f->type) {
    case 'i': { int v; memcpy(&v, at, sizeof v); snprintf(text, 40, "%d", v); break; }
    case 'l': { long v; memcpy(&v, at, sizeof v); snprintf(text, 40, "%ld", v); break; }
    case 'u': { uint64_t v; memcpy(&v, at, sizeof v); snprintf(text, 40, "%llu", (unsigned long long)v); break; }
    case 's': snprintf(text, 40, "%.31s", at); break;
    case 'f': snprintf(text, 40, "%s", ctm__function_name((const ctm_config *)of, f)); break;
    default:  { double v; memcpy(&v, at, sizeof v); ctm__real_text(text, 40, digits, v); break; }
    }
}

// A whole number from lo to hi, and nothing else.
static int ctm__whole_read(const char *text, long long lo, long long hi, long long *v) {
    char *end;
    errno = 0;
    *v = strtoll(text, &end, 10);
    return strchr("-0123456789", *text) && *text && *end == 0 && errno == 0 && *v >= lo && *v <= hi;
}

// The function of that name; "none" is NULL.
static int ctm__function_read(void *of, const ctm__field *f, const char *text) {
    ctm__function function = NULL;
    int i, found = strcmp(text, "none") == 0;
    for (i = 0; i < CTM__FUNCTIONS && !found; i++)
        if (strcmp(ctm__functions[i].setting, f->name) == 0 && strcmp(ctm__functions[i].name, text) == 0) {
            function = ctm__functions[i].function;
            found = 1;
        }
    if (found) memcpy((char *)of + f->at, &function, sizeof function);
    return found;
}

static int ctm__field_read(void *of, const ctm__field *f, const char *text) {
    char *at = (char *)of + f->at, *end;
    long long v;
    switch (f->type) {
    case 'i': { int x; if (!ctm__whole_read(text, INT_MIN, INT_MAX, &v)) return 0; x = (int)v; memcpy(at, &x, sizeof x); return 1; }
    case 'l': { long x; if (!ctm__whole_read(text, LONG_MIN, LONG_MAX, &v)) return 0; x = (long)v; memcpy(at, &x, sizeof x); return 1; }
    case 'u': {
        uint64_t x;
        errno = 0;
        x = strtoull(text, &end, 10);
        memcpy(at, &x, sizeof x);
        return *text >= '0' && *text <= '9' && *end == 0 && errno == 0;
    }
    case 's': if (strlen(text) > 31) return 0; memset(at, 0, 32); memcpy(at, text, strlen(text)); return 1;
    case 'f': return ctm__function_read(of, f, text);
    default: { double x; if (!ctm__real_read(text, &x)) return 0; memcpy(at, &x, sizeof x); return 1; }
    }
}

// What may stand in a setting, in words.
static void ctm__setting_expects(const ctm__setting *s, char *line, size_t size) {
    char least[40], most[40];
    size_t at;
    int i;
    if (s->field.type == 's') { snprintf(line, size, "a name of at most 31 letters"); return; }
    if (s->field.type == 'u') { snprintf(line, size, "a whole number from 0"); return; }
    if (s->field.type != 'f') {
        ctm__real_text(least, sizeof least, 10, s->least);
        ctm__real_text(most, sizeof most, 10, s->most);
        snprintf(line, size, "a %s from %s to %s", s->field.type == 'd' ? "number" : "whole number", least, most);
        return;
    }
    snprintf(line, size, "one of none");
    for (i = 0; i < CTM__FUNCTIONS; i++) {
        at = strlen(line);
        if (strcmp(ctm__functions[i].setting, s->field.name) == 0) snprintf(line + at, size - at, ", %s", ctm__functions[i].name);
    }
}

// 1 if the number lies in its range; text and functions have none.
static int ctm__setting_in_range(const ctm_config *cfg, const ctm__setting *s) {
    const char *at = (const char *)cfg + s->field.at;
    double v = 0;
    if (s->field.type == 'i') { int x; memcpy(&x, at, sizeof x); v = x; }
    else if (s->field.type == 'l') { long x; memcpy(&x, at, sizeof x); v = (double)x; }
    else if (s->field.type == 'd') memcpy(&v, at, sizeof v);
    else return 1;
    return ctm_is_finite(v) && v >= s->least && v <= s->most;
}

// 1 if all numbers are possible, whatever the functions are; or 0 and a line about the first that is not.
static int ctm__numbers_fit(const ctm_config *cfg, char *line, size_t size) {
    char text[40], expected[200];
    int i;
    for (i = 0; i < CTM__SETTINGS; i++) {
        const ctm__setting *s = &ctm__settings[i];
        if (ctm__setting_in_range(cfg, s)) continue;
        ctm__field_text(cfg, &s->field, 6, text);
        ctm__setting_expects(s, expected, sizeof expected);
        snprintf(line, size, "%s is %s, but it must be %s", s->field.name, text, expected);
        return 0;
    }
    if (cfg->noise.sigma_max >= 1.1 * cfg->noise.sigma_min) return 1;
    snprintf(line, size, "noise.sigma_max must be at least 1.1 times noise.sigma_min");
    return 0;
}

// 1 if a run can have these settings; or 0 and a line about what it cannot have.
static int ctm__config_fits(const ctm_config *cfg, char *line, size_t size) {
    const char *fault = NULL;
    int u_is_s = cfg->times == ctm_times_points || cfg->times == ctm_times_images || cfg->times == ctm_times_global;
    if (!ctm__numbers_fit(cfg, line, size)) return 0;
    if (cfg->times && !(cfg->teach && cfg->weight))   fault = "it has a function for times, so it needs some for teach and weight, too";
    else if (cfg->aim && !cfg->level)                 fault = "it has a function for aim, so it needs one for level, too";
    else if (!cfg->times && !cfg->aim)                fault = "it has no function for times and none for aim: nothing would be trained";
    else if (cfg->gan && !cfg->times)                 fault = "an adversary (gan) judges jumps, but there is no function for times";
    else if (cfg->teach == ctm_teach_jump && u_is_s)  fault = "ctm_teach_jump needs u before s, but these times have u = s: "
                                                              "the jump would be its own target";
    if (fault) snprintf(line, size, "%s", fault);
    return fault == NULL;
}

CTM__DEF int ctm_config_set(ctm_ctx *ctx, ctm_config *cfg, const char *name, const char *value) {
    const ctm__setting *s = ctm__setting_named(name);
    ctm_config next = *cfg;
    char expected[200];
    if (!s) return ctm__fail(ctx, "there is no setting \"%.40s\"", name);
    if (!ctm__field_read(&next, &s->field, value) || !ctm__setting_in_range(&next, s)) {
        ctm__setting_expects(s, expected, sizeof expected);
        return ctm__fail(ctx, "%s: \"%.40s\" was given, but %s was expected", name, value, expected);
    }
    *cfg = next;
    return 1;
}

CTM__DEF int ctm_config_fits(ctm_ctx *ctx, const ctm_config *cfg) {
    char line[300];
    return ctm__config_fits(cfg, line, sizeof line) || ctm__fail(ctx, "%s", line);
}

#ifndef CTM_NO_STDIO
CTM__DEF void ctm_config_print(const ctm_config *cfg) {
    int i;
    for (i = 0; i < CTM__SETTINGS; i++) {
        char text[40];
        ctm__field_text(cfg, &ctm__settings[i].field, 6, text);
        printf("%-18s %-10s%s", ctm__settings[i].field.name, text, i % 4 == 3 || i == CTM__SETTINGS - 1 ? "\n" : " ");
    }
}

static void ctm__write_settings(ctm_writer *w, const ctm_config *cfg) {
    char key[64], text[40];
    int i;
    for (i = 0; i < CTM__SETTINGS; i++) {
        snprintf(key, sizeof key, "ctm.%s", ctm__settings[i].field.name);
        ctm__field_text(cfg, &ctm__settings[i].field, 17, text);
        ctm_writer_meta(w, key, text);
    }
}

// Functions that this program does not have, the user's own among them, are left NULL: the network can be sampled from, and the
// functions can be filled in. A file of version 0.2 has no functions at all, and no recipe's name.
CTM__DEF int ctm_config_read(const ctm_file *f, ctm_config *cfg) {
    const char *outer = ctm_file_meta(f, "ctm.noise.outer"), *text;
    char key[64], line[300];
    int i, old = ctm_file_meta(f, "ctm.recipe") == NULL;
    ctm_config next = ctm_recipe_paper();
    next.times = NULL; next.teach = NULL; next.weight = NULL; next.aim = NULL; next.level = NULL;
    snprintf(next.recipe, sizeof next.recipe, "of version 0.2");
    if (outer && strcmp(outer, "0") != 0) return ctm__fail(f->ctx, "%s: its G has another form than (s/t)·x + (1 - s/t)·g", f->path);
    for (i = 0; i < CTM__SETTINGS; i++) {
        const ctm__field *field = &ctm__settings[i].field;
        snprintf(key, sizeof key, "ctm.%s", field->name);
        text = ctm_file_meta(f, key);
        if (!text && old && strncmp(key, "ctm.noise.", 10) != 0) continue;
        if (!text) return ctm__fail(f->ctx, "%s: its metadata have no \"%s\"", f->path, key);
        if (!ctm__field_read(&next, field, text) && field->type != 'f') {
            ctm__setting_expects(&ctm__settings[i], line, sizeof line);
            return ctm__fail(f->ctx, "%s: \"%s\" is \"%.60s\", but %s was expected", f->path, key, text, line);
        }
    }
    if (!ctm__numbers_fit(&next, line, sizeof line)) return ctm__fail(f->ctx, "%s: its settings make no sense: %s", f->path, line);
    *cfg = next;
    return 1;
}

// A run can be resumed only with the recipe that began it: its name and its functions must be those of the file.
static int ctm__same_recipe(const ctm_config *cfg, const ctm_file *f) {
    char key[64], has[40];
    int i;
    for (i = 0; i < CTM__SETTINGS; i++) {
        const ctm__field *field = &ctm__settings[i].field;
        const char *text;
        if (field->type != 's' && field->type != 'f') continue;
        snprintf(key, sizeof key, "ctm.%s", field->name);
        text = ctm_file_meta(f, key);
        if (!text) return ctm__fail(f->ctx, "%s: has no \"%s\", as recipes had no names before version 0.3: such a run cannot be resumed",
                                    f->path, key);
        ctm__field_text(cfg, field, 17, has);
        if (strcmp(text, has) != 0)
            return ctm__fail(f->ctx, "%s: its %s is \"%.40s\", but that of this run is \"%s\"", f->path, field->name, text, has);
    }
    return 1;
}
#endif

// =====================================================================================================================
// CHAPTER 15. RECIPES
//
// A recipe is a function that returns settings. Read ctm_recipe_paper first: it is the algorithm that the opening of this file teaches
// and that the chapters explain. The others depart from it, and say why.
//
// What a recipe decides above all is which jumps are practised, since a network is good at what it practises. Three grid indices are
// drawn for every row: i_t where the jump begins, i_u where the teacher stops, i_s where the jump ends. Grid indices grow while noise
// levels fall, so i_t < i_u <= i_s. The place of u between t and s makes the three kinds of matching that the paper compares:
//
//        local     u one grid step after t     the teacher hardly helps: nearly all of the target is the student's own guess
//        global    u = s                       all of the target is the teacher's, but long walks cost many solver steps
//        soft      u anywhere between          some targets are nearly the teacher's, the others make jumps agree with one another
//
// The paper uses soft matching [eq:law_paper]: i_t is uniform among all indices but the last, i_s among those after i_t, and i_u among
// those after i_t up to i_s. (The paper's text leaves these distributions open.)
//
// The authors' code [eq:law_h] first draws how far the teacher walks, h grid steps with P(h) proportional to h, the same h for the whole
// batch; then i_t among the indices that leave room, i_u = i_t + h, and i_s uniform from i_u to the end. Nearly half of its draws
// have u = s, nearly a third start at T, and only one in 153 has h = 1: it hardly ever practises short jumps.
//
// Our distribution for points [eq:law_gap] comes from that observation. A chain of jumps needs short ones, so the gap k between t
// and s has P(k) proportional to k^-0.7, and u = s, so that the target is the teacher's own point. One draw in ten is made as in the
// authors' code, to make the jumps agree with one another.
// =====================================================================================================================

// The numbers of the paper's recipe stand in the table of chapter 14, its formulas are the functions below.
CTM__DEF ctm_config ctm_recipe_paper(void) {
    ctm_config c;
    int i;
    memset(&c, 0, sizeof c);
    for (i = 0; i < CTM__SETTINGS; i++) {
        const ctm__setting *s = &ctm__settings[i];
        char *at = (char *)&c + s->field.at;
        if (s->field.type == 'i') { int v = (int)s->paper; memcpy(at, &v, sizeof v); }
        if (s->field.type == 'l') { long v = (long)s->paper; memcpy(at, &v, sizeof v); }
        if (s->field.type == 'd') memcpy(at, &s->paper, sizeof(double));
    }
    snprintf(c.recipe, sizeof c.recipe, "paper");
    c.times  = ctm_times_paper;        // t, s, and u anywhere between: soft matching
    c.teach  = ctm_teach_solver;       // the teacher walks from t to u
    c.aim    = ctm_aim_data;           // L_DSM compares g(x_t,t,t) with x_0
    c.level  = ctm_level_edm;          // at EDM's noise levels
    c.weight = ctm_weight_uniform;     // all rows of L_CTM count alike
    return c;
}

// The code that the paper's authors published differs from the paper in these points. Its optimiser is for a U-Net of 60 million weights.
CTM__DEF ctm_config ctm_recipe_authors(void) {
    ctm_config c = ctm_recipe_paper();
    snprintf(c.recipe, sizeof c.recipe, "authors");
    c.times = ctm_times_authors;
    c.target_ema = 0;                  // the student itself, without gradient, makes the target's jump from u to s
    c.level = ctm_level_authors;
    c.lr = 4e-4; c.final_lr = 1;       // a constant learning rate
    c.ema_rate[1] = 0.9999; c.ema_warmup = 0;
    return c;
}

// Ours for points. An exact teacher knows D(x,t), the mean of what L_DSM could otherwise only learn from noisy x_0: aiming at it
// has the same best student and far less noise in the gradient. The teacher is cheap, so it takes three solver steps for an
// interval of the grid; with one, the error of the solver would be the largest of all.
CTM__DEF ctm_config ctm_recipe_points(void) {
    ctm_config c = ctm_recipe_paper();
    snprintf(c.recipe, sizeof c.recipe, "points");
    c.times = ctm_times_points;
    c.target_ema = 0; c.level = ctm_level_authors;     // as in the authors' code
    c.substeps = 3;
    c.share_at_s = 0.5;                // a jump to a large s is also judged by itself, before the average carries it on
    c.distance = CTM_HUBER;            // rows at the border between two modes miss by much: they shall not rule the gradient
    c.aim = ctm_aim_teacher; c.diagonal_batch = 128; c.lambda_dsm = 0.5; c.adaptive = 0;
    c.optimiser = CTM_ADAM; c.lr = 7e-3; c.beta2 = 0.99; c.clip = 0.2; c.warmup = 0.02;      // found by trying: docs/diary.md
    return c;
}

// Ours for images. The teacher is a network here, so every solver step costs two of its evaluations, and D(x,t) is not exact. The student
// should begin as a copy of the teacher (ctm_net_copy_matching): it need not learn to denoise, only not forget it, and half a batch of
// L_DSM will do. The numbers are for a small network and a short training, where many small steps learn more than few large ones.
CTM__DEF ctm_config ctm_recipe_images(void) {
    ctm_config c = ctm_recipe_points();
    snprintf(c.recipe, sizeof c.recipe, "images");
    c.times = ctm_times_images;
    c.substeps = 1;
    c.aim = ctm_aim_data; c.diagonal_batch = 8; c.lambda_dsm = 1; c.adaptive = 1;
    c.batch = 16; c.shards = 4; c.steps = 5000;
    c.lr = 2e-3; c.clip = 1; c.gan_lr = 2e-4;
    return c;
}

// [eq:cm] A consistency model jumps to time zero only, and its teacher walks one grid interval:
//        d( G(x_t,t,sigma_min), G_ema(x_u,u,sigma_min) )
// Its boundary condition G(x,sigma_min,sigma_min) = x holds here as well, since s/t = 1 there. Besides, there is no L_DSM, the average
// makes the target, and nothing is compared at s. All else is as in `points`.
CTM__DEF ctm_config ctm_recipe_cd(void) {
    ctm_config c = ctm_recipe_points();
    snprintf(c.recipe, sizeof c.recipe, "cd");
    c.times = ctm_times_cm;
    c.target_ema = 1;
    c.share_at_s = 0;
    c.aim = NULL; c.level = NULL;
    return c;
}

CTM__DEF ctm_config ctm_recipe_ct(void) {
    ctm_config c = ctm_recipe_cd();
    snprintf(c.recipe, sizeof c.recipe, "ct");
    c.teach = ctm_teach_data;          // no teacher: x_u is the same data point with the same noise, scaled to u
    return c;
}

// A teacher has no jumps, and its noise levels are all EDM's. The authors' levels put half of the rows high up, which suits a student
// whose other loss looks after the low levels; a teacher that is trained so blurs what lies close together (it misses
// many of 25 small modes in a 5 x 5 square). L_DSM aims at x_0 and not at its mean, so its gradient is noisier than that of L_CTM: more
// rows are averaged in a step; and beside `points` the steps are shorter and Adam remembers more of them.
CTM__DEF ctm_config ctm_recipe_teacher(const ctm_config *student) {
    ctm_config c = *student;
    snprintf(c.recipe, sizeof c.recipe, "teacher");
    c.times = NULL;
    c.gan = CTM_GAN_NONE;
    c.aim = ctm_aim_data; c.level = ctm_level_edm; c.diagonal_batch = 2 * c.batch; c.adaptive = 0;
    c.optimiser = CTM_ADAM; c.lr = 2e-3; c.beta2 = 0.999;
    c.clip = student->clip * 0.5 / student->noise.sigma_data;    // undoes the factor S/0.5 of YOUR OWN DATA: L_DSM does not grow with S
    return c;
}

CTM__DEF int ctm_recipe_named(ctm_ctx *ctx, const char *name, ctm_config *cfg) {
    static const struct { const char *name; ctm_config (*recipe)(void); } known[] = {
        {"paper", ctm_recipe_paper}, {"authors", ctm_recipe_authors}, {"points", ctm_recipe_points}, {"images", ctm_recipe_images},
        {"cd", ctm_recipe_cd}, {"ct", ctm_recipe_ct}};
    size_t i;
    for (i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i].name, name) == 0) { *cfg = known[i].recipe(); return 1; }
    return ctm__fail(ctx, "there is no recipe \"%.40s\"; there are paper, authors, points, images, cd, ct", name);
}

// ---- times: which jumps are practised

// The first k in lo..hi whose cumulated weight k^power exceeds the fraction r of the total.
static int ctm__pick_by_power(double r, int lo, int hi, double power) {
    double total = 0, sum = 0;
    int k;
    for (k = lo; k <= hi; k++) total += power == 1 ? k : power == -1 ? 1.0 / k : pow(k, power);
    for (k = lo; k < hi; k++) {
        sum += power == 1 ? k : power == -1 ? 1.0 / k : pow(k, power);
        if (sum > r * total) return k;
    }
    return hi;
}

// Turns r, uniform in (0,1), into a whole number that is uniform in lo..hi.
static int ctm__pick(double r, int lo, int hi) { return ctm__imin(hi, lo + (int)(r * (hi - lo + 1))); }

// Uniform number `which`, 0 to 7, of row `index`.
static double ctm__chance(const ctm_config *c, uint64_t step, uint64_t index, int which) {
    ctm_rng rng = ctm_stream(c->seed, "times");
    return ctm_uniform(&rng, step, 8 * index + (uint64_t)which);
}

// [eq:law_paper]  i_t in 0..N-2, then i_s in i_t+1..N-1, then i_u in i_t+1..i_s.
CTM__DEF void ctm_times_paper(const ctm_config *c, uint64_t step, uint64_t index, double i[3]) {
    int last = c->noise.N - 1;
    i[0] = ctm__pick(ctm__chance(c, step, index, 0), 0, last - 1);
    i[2] = ctm__pick(ctm__chance(c, step, index, 1), (int)i[0] + 1, last);
    i[1] = ctm__pick(ctm__chance(c, step, index, 2), (int)i[0] + 1, (int)i[2]);
}

CTM__DEF void ctm_times_local(const ctm_config *c, uint64_t step, uint64_t index, double i[3]) {
    ctm_times_paper(c, step, index, i);
    i[1] = i[0] + 1;
}

CTM__DEF void ctm_times_global(const ctm_config *c, uint64_t step, uint64_t index, double i[3]) {
    ctm_times_paper(c, step, index, i);
    i[1] = i[2];
}

// A consistency model's: the teacher walks one grid interval, and every jump goes to the end.
CTM__DEF void ctm_times_cm(const ctm_config *c, uint64_t step, uint64_t index, double i[3]) {
    i[0] = ctm__pick(ctm__chance(c, step, index, 0), 0, c->noise.N - 2);
    i[1] = i[0] + 1;
    i[2] = c->noise.N - 1;
}

// [eq:law_h]  h with P(h) ~ h in 1..M (17 in the authors' code), the same for all rows that have the same number `which_h`; then i_t, i_u
// = i_t + h, i_s.
static void ctm__times_by_h(const ctm_config *c, uint64_t step, uint64_t index, uint64_t which_h, int M, double i[3]) {
    ctm_rng rng_h = ctm_stream(c->seed, "times.h");
    int last = c->noise.N - 1, h = ctm__pick_by_power(ctm_uniform(&rng_h, step, which_h), 1, ctm__imin(M, last), 1);
    i[0] = ctm__pick(ctm__chance(c, step, index, 0), 0, last - h);
    i[1] = i[0] + h;
    i[2] = ctm__pick(ctm__chance(c, step, index, 1), (int)i[1], last);
}

CTM__DEF void ctm_times_authors(const ctm_config *c, uint64_t step, uint64_t index, double i[3]) {
    ctm__times_by_h(c, step, index, 0, 17, i);
}

// How often a jump begins at index i_t: four times as often at the noise levels 8.4 to 0.14, where paths decide between the modes of
// the data.
static double ctm__focus(int i_t, int last) { return 17 * i_t >= 6 * last && 17 * i_t <= 13 * last ? 4 : 1; }

// [eq:law_gap]  The gap k has P(k) ~ k^power, or the jump goes straight to the end (a share to_end), and u = s. A share of 0.3 moves off
// the grid, both ends by up to half an index, because a chain of 2, 4 or 8 equal jumps lands there.
static void ctm__times_by_gap(const ctm_config *c, uint64_t step, uint64_t index, double to_end, double power, double i[3]) {
    const double off_grid = 0.3;
    int last = c->noise.N - 1, i_t, k;
    double total = 0, sum = 0, r = ctm__chance(c, step, index, 3), off = ctm__chance(c, step, index, 6);
    for (i_t = 0; i_t < last; i_t++) total += ctm__focus(i_t, last);
    for (i_t = 0; i_t < last - 1; i_t++)
        if ((sum += ctm__focus(i_t, last)) > r * total) break;
    k = ctm__chance(c, step, index, 4) < to_end ? last - i_t : ctm__pick_by_power(ctm__chance(c, step, index, 5), 1, last - i_t, power);
    i[0] = i_t;
    i[1] = i[2] = i_t + k;
    if (off < off_grid) {
        i[0] = ctm__dmax(0, i[0] + off / off_grid - 0.5);          // below off_grid, off / off_grid is uniform in (0,1) again
        i[1] = ctm__dmax(i[0] + 0.1, i[1] + ctm__chance(c, step, index, 7) - 0.5);
        i[1] = i[2] = ctm__dmin(last, i[1]);
    }
}

CTM__DEF void ctm_times_points(const ctm_config *c, uint64_t step, uint64_t index, double i[3]) {
    if (ctm__chance(c, step, index, 2) < 0.1) ctm__times_by_h(c, step, index, index, 17, i);
    else ctm__times_by_gap(c, step, index, 0.03, -0.7, i);
}

// Six draws in ten jump straight to the end, as samples in one jump do, and the teacher walks 4.3 grid steps of the way on average (the
// authors' walks 11.7). The others practise jumps that the teacher walks whole, short ones most.
CTM__DEF void ctm_times_images(const ctm_config *c, uint64_t step, uint64_t index, double i[3]) {
    if (ctm__chance(c, step, index, 2) < 0.6) {
        ctm__times_by_h(c, step, index, index, 6, i);
        i[2] = c->noise.N - 1;
    } else {
        ctm__times_by_gap(c, step, index, 0.05, -1, i);
    }
}

// ---- teach: the point x_u from which the target jumps
// Without a teacher the average teaches itself [eq:self_teach]: x_u is where the ODE of g_ema(x,t,t) arrives at u (the paper,
// ctm_teach_solver), or the end of one jump G_ema(x_t,t,u) (the authors' code, ctm_teach_jump), or of a jump for each grid step. Any G
// that composes and has G(x,t,t) = x makes L_CTM zero then, for example (s/t)·x; only L_DSM ties the student to the data. Consistency
// training (ctm_teach_data) has x_u = x_0 + u·eps with the noise of x_t: right on average as u -> t, too noisy a target for long ways.

CTM__DEF ctm_tensor *ctm_teach_solver(ctm_tape *tp, const ctm_trainer *tr, const ctm_batch *b) {
    const ctm_denoiser *D = tr->teacher ? tr->teacher : tr->self;
    return ctm_solve(tp, D, &tr->cfg.noise, CTM_HEUN, b->x_t, b->i_t, b->i_u, tr->cfg.substeps);
}

// [eq:self_teach]  Without a teacher, the average's own jump from t to u.
CTM__DEF ctm_tensor *ctm_teach_jump(ctm_tape *tp, const ctm_trainer *tr, const ctm_batch *b) {
    return ctm_G_theta(tp, tr->ema[0], b->x_t, b->t, b->u);
}

CTM__DEF ctm_tensor *ctm_teach_jumps(ctm_tape *tp, const ctm_trainer *tr, const ctm_batch *b) {
    ctm__grid grid = ctm__grid_of(&tr->cfg.noise);
    ctm_tensor *x = b->x_t, *t = b->t, *next;
    int B = x->shape[0], more = 1, i, k;
    for (k = 1; more; k++, t = next) {
        next = ctm_vector(tp, "t", B);
        for (more = 0, i = 0; i < B; i++) {
            double at = ctm__dmin(b->i_t[i] + k, b->i_u[i]);
            next->data[i] = (ctm_real)ctm__grid_level(&grid, at);
            if (at < b->i_u[i]) more = 1;
        }
        x = ctm_G_theta(tp, tr->ema[0], x, t, next);   // rows that have arrived stay
    }
    return x;
}

// x_u = x_0 + u·eps, with the eps of x_t.
CTM__DEF ctm_tensor *ctm_teach_data(ctm_tape *tp, const ctm_trainer *tr, const ctm_batch *b) {
    return ctm__add_noise(tp, &tr->rng_noise, (uint64_t)tr->step, tp->rows.first, b->x0, b->u);
}

// ---- aim and level: L_DSM's target, and its noise levels

CTM__DEF ctm_tensor *ctm_aim_data(ctm_tape *tp, const ctm_trainer *tr, ctm_tensor *x0, ctm_tensor *x_t, ctm_tensor *t) {
    (void)tp; (void)tr; (void)x_t; (void)t;
    return x0;
}

CTM__DEF ctm_tensor *ctm_aim_teacher(ctm_tape *tp, const ctm_trainer *tr, ctm_tensor *x0, ctm_tensor *x_t, ctm_tensor *t) {
    (void)x0;
    return tr->teacher->denoise(tp, tr->teacher, x_t, t);
}

// [eq:dsm_law]  ln(level) is normal, with mean -1.2 and standard deviation 1.2 for data of standard deviation 0.5: there denoising is
// hardest to learn.
CTM__DEF double ctm_level_edm(const ctm_config *c, uint64_t step, uint64_t index) {
    ctm_rng rng = ctm_stream(c->seed, "dsm.sigma");
    return c->noise.sigma_data / 0.5 * exp(-1.2 + 1.2 * ctm_normal(&rng, step, index));
}

// [eq:dsm_law]  The first half of the batch as EDM's, the second uniform over the upper 70 % of the grid, levels (0.318, 80].
CTM__DEF double ctm_level_authors(const ctm_config *c, uint64_t step, uint64_t index) {
    ctm_rng rng = ctm_stream(c->seed, "dsm.sigma");
    uint64_t half = (uint64_t)c->diagonal_batch / 2;
    if (index < half) return ctm_level_edm(c, step, index);
    index += half % 2;                                 // after an odd half the next number shares bits with the last normal: chapter 2
    return ctm_t_of_index(&c->noise, 0.7 * ctm_uniform(&rng, step, index) * (c->noise.N - 1));
}

CTM__DEF double ctm_level_uniform(const ctm_config *c, uint64_t step, uint64_t index) {
    ctm_rng rng = ctm_stream(c->seed, "dsm.sigma");
    return ctm_t_of_index(&c->noise, ctm_uniform(&rng, step, index) * (c->noise.N - 1));
}

// =====================================================================================================================
// CHAPTER 16. LOSSES
//
// A jump from t to s must agree with a detour: the teacher walks from t to u, and a jump from u leads to s (chapter 15 says where u lies,
// and why). At a high level s both points are mostly what is left of the noise, and a small difference between them may or may not change
// the sample. So the average ema carries both on to time zero, where a distance between points is a distance between samples:
//
//        x_est    = G_ema( G_theta(x_t,t,s), s, 0 )                                   [eq:x_est]
//        x_target = G_ema( G_sg( Solver(x_t,t,u), u, s ), s, 0 )                      [eq:x_target]
//        L_CTM    = E d(x_est, x_target)                                              [eq:L_ctm]
//
// The target is a constant. Only the estimate is differentiated, through ema's INPUT into G_theta; ema's weights get no gradient. Why an
// average, and not the student itself? The student would chase its own changes, and every step would move the target of the next. In
// the paper the average also makes the target's jump from u to s; in the authors' code the student does, without gradient (target_ema).
// ctm_recipe_points also compares the two points at s, scaled to the size of data, so that a jump to a large s is judged by itself
// (share_at_s).
//
// Near s = t the factor 1 - s/t damps whatever L_CTM could teach about g(x,t,t), so denoising score matching is added there:
//
//        L_DSM = E w(t)·|g_theta(x_t,t,t) - x_0|²/D,    w = 1/c_out² = t^-2 + sd^-2     [eq:L_dsm]
//
// It is the mean of squares over the D coordinates, and w gives every noise level the same say. The rows of L_DSM have noise levels
// of their own, those at which denoising is hard to learn, and no jumps, so they make a batch and a forward pass of their own. Where the
// teacher is exact, its mean D(x_t,t) may replace the noisy x_0 (ctm_aim_teacher): the same best student, far less noise.
//
// How much should each loss count? L_CTM shrinks as the student learns, and a fixed lambda would let L_DSM take over. So lambda gives
// both gradients the same length at the last layer of the network [eq:lambda]. (With the exact D(x_t,t) as aim L_DSM shrinks, too, and
// ctm_recipe_points has a fixed lambda.)
// =====================================================================================================================

// [eq:x_est]  x_est = G_ema( G_theta(x_t,t,s), s, 0 ). Recorded: theta gets its gradient through ema's input.
CTM__DEF ctm_tensor *ctm_x_est(ctm_tape *tp, ctm_net *theta, ctm_net *ema, ctm_tensor *x_t, ctm_tensor *t,
                               ctm_tensor *s, ctm_tensor **at_s) {
    ctm_tensor *zero = ctm_fill(ctm_vector(tp, "zero", t->shape[0]), theta->noise.sigma_min);
    ctm_tensor *x_s = ctm_G_theta(tp, theta, x_t, t, s);
    ctm_name(x_s, "x_est(s)");
    if (at_s) *at_s = x_s;
    if (!ema) return x_s;
    return ctm_name(ctm_G_theta(tp, ema, x_s, s, zero), "x_est");
}

// [eq:x_target]  x_target = G_ema( G_sg(x_u,u,s), s, 0 ), x_u = Solver(x_t,t,u). A constant.
CTM__DEF ctm_tensor *ctm_x_target(ctm_tape *tp, ctm_net *net, ctm_net *ema, ctm_tensor *x_u, ctm_tensor *u,
                                  ctm_tensor *s, ctm_tensor **at_s) {
    ctm_tensor *zero = ctm_fill(ctm_vector(tp, "zero", u->shape[0]), net->noise.sigma_min), *x_s, *end;
    int recording = tp->recording;
    tp->recording = 0;                                  // stop-gradient: nothing of the target is differentiated
    x_s = ctm_G_theta(tp, net, x_u, u, s);
    if (x_s != x_u) ctm_name(x_s, "x_target(s)");      // where no row moves it is x_u itself
    if (at_s) *at_s = x_s;
    end = ema ? ctm_name(ctm_G_theta(tp, ema, x_s, s, zero), "x_target") : x_s;
    tp->recording = recording;
    return end;
}

// [eq:weights]
CTM__DEF double ctm_weight_uniform(const ctm_noise *z, double t, double s) { (void)z; (void)t; (void)s; return 1; }
CTM__DEF double ctm_weight_snr(const ctm_noise *z, double t, double s) { (void)z; (void)s; return 1 / (t * t); }
CTM__DEF double ctm_weight_truncated_snr(const ctm_noise *z, double t, double s) { (void)z; (void)s; return ctm__dmax(1 / (t * t), 1); }
CTM__DEF double ctm_weight_uniform_g(const ctm_noise *z, double t, double s) { (void)z; return t / (t - s); }
CTM__DEF double ctm_weight_karras(const ctm_noise *z, double t, double s) {
    double sd = z->sigma_data;
    (void)s;
    return (t * t + sd * sd) / (t * sd * t * sd);
}

// lambda_X = |grad of L| / (|grad of X| + 1e-4), at the last layer, in [0, 1e4]: X then pulls as hard as L does. [eq:lambda]
CTM__DEF double ctm_adaptive_weight(const ctm_real *grad_L, const ctm_real *grad_X, size_t n) {
    double L = 0, X = 0;
    size_t i;
    for (i = 0; i < n; i++) {
        L += (double)grad_L[i] * (double)grad_L[i];
        X += (double)grad_X[i] * (double)grad_X[i];
    }
    return ctm__dmin(sqrt(L) / (sqrt(X) + 1e-4), 1e4);
}

#ifndef CTM_NO_IMAGES
// ---- LPIPS
// For images the authors' d is LPIPS: how far two images are apart to a network that was trained to recognise things, VGG16, and
// weighted by what people found similar [eq:lpips]. With φ_l(x) [H,W,C] its features at five depths, each pixel's scaled to length 1,
//
//        d(a,b) = sum over l of  mean over pixels of  sum over channels k of  w_l[k]·(φ_l(a)[k] - φ_l(b)[k])²,      w_l >= 0
//
//     image -> 224 x 224 -> (x - shift)/scale -> conv conv φ_0 pool  conv conv φ_1 pool  conv conv conv φ_2 pool  ... φ_3 pool ... φ_4
//
// with 3x3 convolutions, a ReLU after each. The weights are the user's: no file of them comes with ctm.h.

// The convolutions before each of the five features, and their numbers in torchvision's list of VGG16's layers.
enum { CTM__VGG_BLOCKS = 5, CTM__VGG_CONVS = 13 };
static const int ctm__vgg_convs[CTM__VGG_BLOCKS] = {2, 2, 3, 3, 3};
#ifndef CTM_NO_STDIO
static const int ctm__vgg_layer[CTM__VGG_CONVS] = {0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28};
#endif
static int ctm__vgg_side(int size) { return size < 256 ? 224 : size; }        // smaller images are enlarged, as the authors do

// sqrt(w_l)·φ_l(x) for all five l, so that squared differences are weighted ones.
static void ctm__vgg(ctm_tape *tp, const ctm_lpips *q, ctm_tensor *x, ctm_tensor *feature[CTM__VGG_BLOCKS]) {
    ctm_tensor **w = q->net->param, **root = w + 2 * CTM__VGG_CONVS;
    int side = ctm__vgg_side(q->size), l, k;
    x = ctm_reshape(tp, x, 4, x->shape[0], q->size, q->size, q->channels);
    if (side != q->size) x = ctm_resize(tp, x, side, side);
    x = ctm_conv(tp, x, q->scale, q->shift, NULL, NULL, 1);                  // its zeros outside are those of VGG's first layer
    for (l = 0; l < CTM__VGG_BLOCKS; l++) {
        if (l) x = q->pool == CTM_POOL_MAX ? ctm_max_pool(tp, x) : ctm_down(tp, x);
        for (k = 0; k < ctm__vgg_convs[l]; k++, w += 2) x = ctm_relu(tp, ctm_conv(tp, x, w[0], w[1], NULL, NULL, 1));
        feature[l] = ctm_unit_channels(tp, x, root[l], 1e-10);
    }
}

// [eq:lpips]  d(a,b) = sum_l mean over pixels of sum_k w_l[k]·(φ_l(a)[k] - φ_l(b)[k])²
CTM__DEF ctm_tensor *ctm_lpips_distance(void *lpips, ctm_tape *tp, ctm_tensor *a, ctm_tensor *b) {
    const ctm_lpips *q = (const ctm_lpips *)lpips;
    ctm_tensor *of_a[CTM__VGG_BLOCKS], *of_b[CTM__VGG_BLOCKS], *kept[CTM__VGG_BLOCKS], *d = NULL;
    int recording = tp->recording, B = a->shape[0], side = ctm__vgg_side(q->size), l;
    ctm_mark m;
    CTM__SHAPES(a->ndim == 2 && a->len == (size_t)B * (size_t)(q->size * q->size * q->channels) && ctm__same_shape(a, b),
                "ctm_lpips_distance", "both must be [B,size·size·channels]", a, b);
    for (l = 0; l < CTM__VGG_BLOCKS; l++)
        kept[l] = ctm_image(tp, "features of b", B, side >> l, side >> l, (int)q->net->param[2 * CTM__VGG_CONVS + l]->len);
    m = ctm_arena_mark(tp->arena);
    tp->recording = 0;                                  // b is a constant: of its way through the network only the features stay
    ctm__vgg(tp, q, b, of_b);
    for (l = 0; l < CTM__VGG_BLOCKS; l++) memcpy(kept[l]->data, of_b[l]->data, kept[l]->len * sizeof(ctm_real));
    ctm_arena_release(tp->arena, m);
    tp->recording = recording;
    ctm__vgg(tp, q, a, of_a);
    for (l = 0; l < CTM__VGG_BLOCKS; l++) {             // the mean over pixels and channels, times the channels
        int row = (int)(kept[l]->len / (size_t)B);
        ctm_tensor *part = ctm_distance(tp, ctm_reshape(tp, of_a[l], 2, B, row, 0, 0),
                                        ctm_reshape(tp, kept[l], 2, B, row, 0, 0), CTM_L2, 0);
        part = ctm_scale(tp, part, kept[l]->shape[3]);
        d = d ? ctm_add(tp, d, part) : part;
    }
    return ctm_name(d, "lpips");
}
#endif

// ---- the adversary
// An adversary may sharpen what L_CTM blurs. A discriminator, with logits l on data and l' on fakes x_est, learns to tell the two
// apart, and the student learns to be taken for data:
//
//                    student [eq:L_gan]         discriminator [eq:L_disc]
//        hinge       E -l'                      E max(0, 1 - l) + E max(0, 1 + l')                   (the authors' code)
//        log         E -ln p'                   E -ln p + E -ln(1 - p'),   p = 1/(1 + exp(-l))       (same optimum, never without gradient)
//        minimax     E  ln(1 - p')              the same                                             (the paper to the letter)
//
// -ln p is softplus(-l) and -ln(1-p) softplus(l), finite for any logit. Where the discriminator wins early, minimax leaves the
// student no gradient: hence the middle line.

static void ctm__check_logits(int kind, const ctm_tensor *l) {
    CTM__SHAPES(l->ndim == 2, "adversarial loss", "logits must be [B,K]", l, NULL);
    CTM__REQUIRE(kind == CTM_GAN_HINGE || kind == CTM_GAN_LOG || kind == CTM_GAN_MINIMAX, "adversarial loss: %d is no kind of it", kind);
}

// [eq:L_gan]  The student wants its fakes taken for data.
CTM__DEF ctm_tensor *ctm_gan_student_loss(ctm_tape *tp, int kind, ctm_tensor *fake, double n) {
    ctm_tensor *each;
    ctm__check_logits(kind, fake);
    if (kind == CTM_GAN_HINGE)    each = ctm_scale(tp, fake, -1);                                     // -l'
    else if (kind == CTM_GAN_LOG) each = ctm_softplus(tp, ctm_scale(tp, fake, -1));                   // -ln p'
    else                          each = ctm_scale(tp, ctm_softplus(tp, fake), -1);                   // ln(1 - p')
    return ctm_name(ctm_weighted_mean(tp, each, NULL, n), "L_gan");
}

// The loss of every logit that should be high (sign 1) or low (sign -1): the hinge, or the logarithm.
static ctm_tensor *ctm__misjudged(ctm_tape *tp, int kind, ctm_tensor *l, double sign) {
    ctm_tensor *minus = ctm_scale(tp, l, -sign);
    if (kind != CTM_GAN_HINGE) return ctm_softplus(tp, minus);
    return ctm_relu(tp, ctm_add(tp, ctm_fill(ctm_matrix(tp, "1", l->shape[0], l->shape[1]), 1), minus));
}

// [eq:L_disc]  The discriminator wants logits high on data and low on fakes.
CTM__DEF ctm_tensor *ctm_gan_disc_loss(ctm_tape *tp, int kind, ctm_tensor *real, ctm_tensor *fake, double n) {
    ctm_tensor *L_real, *L_fake;
    ctm__check_logits(kind, real);
    ctm__check_logits(kind, fake);
    L_real = ctm_weighted_mean(tp, ctm__misjudged(tp, kind, real, 1), NULL, n);
    L_fake = ctm_weighted_mean(tp, ctm__misjudged(tp, kind, fake, -1), NULL, n);
    return ctm_name(ctm_add(tp, L_real, L_fake), "L_disc");
}

// =====================================================================================================================
// CHAPTER 17. ONE TRAINING STEP
//
// The paper's algorithm, line by line [alg:train]:
//
//        x_t = x_0 + t·eps                                               data and noise, with (t,u,s) for every row
//        x_u = Solver(x_t, t, u)                                         the teacher walks
//        L   = L_CTM + lambda_DSM·L_DSM + lambda_GAN·L_GAN               chapter 16
//        theta <- theta - RAdam(grad L),   ema <- r·ema + (1-r)·theta    chapter 10
//
// Begin with ctm__ctm_loss and ctm_train_step; the other functions are their parts. The batch is cut into shards. A shard
// draws its rows by their numbers in the whole batch, works on its own tape, and leaves its part of each loss and each gradient. The parts
// are summed in order, so the number of threads changes no bit.
//
// Each loss has its own backward pass, into cleared gradients. Then  total = grad L_CTM + lambda·grad L_DSM + ..  is a sum of arrays,
// lambda is made of the norms of two of them, and a reader can print the gradient of each loss. L_GAN jumps from the same x_t once more
// on a tape of its own: two passes more, but the tape of L_CTM need not be kept for a second walk backwards.
//
// Processes share a batch as threads do, by shards (see ctm_processes). The gradient of each loss is summed over them before its lambda is
// taken, so they all see the same norms, make the same step, and have the same weights ever after. Nothing but these sums is sent.
//
// With an adversary, steps take turns: one trains the student and its averages, the next gan_period - 1 train the discriminator.
// =====================================================================================================================

// Rows of data drawn by their global numbers.
static ctm_tensor *ctm__draw_data(ctm_tape *tp, const ctm_trainer *tr, const ctm_rng *rng, int first, int rows) {
    ctm_tensor *x0 = ctm_matrix(tp, "x0", rows, tr->theta->dim);
    int i;
    for (i = 0; i < rows; i++)
        tr->draw(tr->user, rng, (uint64_t)tr->step, (uint64_t)(first + i), x0->data + (size_t)i * (size_t)tr->theta->dim);
    return x0;
}

// Compared at s instead of time zero, x_s is scaled to the data's size: x_s·sd/sqrt(s² + sd²).
static ctm_tensor *ctm__unit_scale(ctm_tape *tp, const ctm_noise *z, ctm_tensor *x_s, ctm_tensor *s) {
    ctm_tensor *c = ctm__coefficients(tp, "sd/sqrt(s^2+sd^2)", s);
    int i;
    for (i = 0; i < s->shape[0]; i++) c->data[i] = (ctm_real)(z->sigma_data * ctm_c_in(z, (double)s->data[i]));
    return ctm_mix_rows(tp, c, x_s, NULL, NULL);
}

// Classes of the rows that ctm__draw_data gives, some of them dropped; NULL if the data have none.
static const int *ctm__draw_labels(ctm_tape *tp, const ctm_trainer *tr, const ctm_rng *data, const ctm_rng *dropout, int first, int rows) {
    int *label, i;
    if (!tr->label) return NULL;
    label = (int *)ctm_alloc_raw(tp->arena, ((size_t)rows + 1) * sizeof(int));
    for (i = 0; i < rows; i++) {
        uint64_t step = (uint64_t)tr->step, index = (uint64_t)(first + i);
        label[i] = tr->label(tr->label_user, data, step, index);
        CTM__REQUIRE(label[i] >= -1 && label[i] < tr->cfg.classes,
                     "ctm_train_step: the label of row %d is %d, which is out of range: there are %d classes (-1: no label)",
                     first + i, label[i], tr->cfg.classes);
        if (tr->cfg.label_dropout > 0 && ctm_uniform(dropout, step, index) < tr->cfg.label_dropout) label[i] = -1;
    }
    return label;
}

// Tells the tape what its rows are: their numbers in the whole batch, their labels, the stream of their dropout.
static void ctm__set_rows(ctm_tape *tp, const ctm_trainer *tr, const ctm_rng *dropout, int first, const int *label) {
    tp->rows.label = label;
    tp->rows.dropout = tr->cfg.dropout > 0 ? dropout : NULL;
    tp->rows.step = (uint64_t)tr->step;
    tp->rows.first = (uint64_t)first;
    tp->rows.number = NULL;
}

// Stops with the name of the user's function and the row if what it returned for the rows from number `first` on cannot be used.
static void ctm__check_own(const ctm_trainer *tr, const char *setting, const ctm_tensor *x, const ctm_tensor *like, int first) {
    char has[48], wanted[48];
    size_t at;
    if (!ctm__is_own(&tr->cfg, setting)) return;
    CTM__REQUIRE(x != NULL, "cfg.%s of the recipe \"%s\" returned NULL", setting, tr->cfg.recipe);
    ctm_shape_text(x, has, sizeof has);
    ctm_shape_text(like, wanted, sizeof wanted);
    CTM__REQUIRE(ctm__same_shape(x, like), "cfg.%s of the recipe \"%s\" returned a tensor of the shape %s, but must return %s", setting,
                 tr->cfg.recipe, has, wanted);
    CTM__REQUIRE(!ctm_first_nonfinite(x, &at), "cfg.%s of the recipe \"%s\": row %d holds a number that is not finite", setting,
                 tr->cfg.recipe, first + (int)(at / ctm__row_len(x)));
}

// Grid indices of row `index`, in order and on the grid.
static void ctm__times_of(const ctm_trainer *tr, uint64_t index, double i[3]) {
    const ctm_config *cfg = &tr->cfg;
    cfg->times(cfg, (uint64_t)tr->step, index, i);
    CTM__REQUIRE(ctm_is_finite(i[0] + i[1] + i[2]) && i[0] >= 0 && i[0] < i[1] && i[1] <= i[2] && i[2] <= cfg->noise.N - 1,
                 "cfg.times of the recipe \"%s\": row %d has the grid indices t %g, u %g, s %g, but needs 0 <= t < u <= s <= %d",
                 cfg->recipe, (int)index, i[0], i[1], i[2], cfg->noise.N - 1);
}

// What one shard draws for its rows of L_CTM: noise levels t > u >= s (and the grid indices of t and u), data, the noised point; and
// on the tape, the rows' labels and numbers.
static ctm_batch ctm__draw_batch(ctm_shard *sh) {
    ctm_trainer *tr = sh->tr;
    const ctm_config *cfg = &tr->cfg;
    ctm_tape *tp = &sh->tape;
    ctm__grid grid = ctm__grid_of(&cfg->noise);
    int B = sh->rows, i;
    ctm_batch b;
    b.t = ctm_vector(tp, "t", B);
    b.u = ctm_vector(tp, "u", B);
    b.s = ctm_vector(tp, "s", B);
    b.w = ctm_vector(tp, "w", B);
    b.i_t = (double *)ctm_alloc(tp->arena, (size_t)B * sizeof(double));
    b.i_u = (double *)ctm_alloc(tp->arena, (size_t)B * sizeof(double));
    for (i = 0; i < B; i++) {
        double index[3], level[3], w;
        int k;
        ctm__times_of(tr, (uint64_t)(sh->first + i), index);
        for (k = 0; k < 3; k++) level[k] = ctm__grid_level(&grid, index[k]);
        w = cfg->weight(&cfg->noise, level[0], level[2]);
        CTM__REQUIRE(ctm_is_finite(w) && w >= 0, "cfg.weight of the recipe \"%s\": row %d has the weight %g", cfg->recipe,
                     sh->first + i, w);
        b.i_t[i] = index[0];
        b.i_u[i] = index[1];
        b.t->data[i] = (ctm_real)level[0];
        b.u->data[i] = (ctm_real)level[1];
        b.s->data[i] = (ctm_real)level[2];
        b.w->data[i] = (ctm_real)w;
    }
    b.x0 = ctm__draw_data(tp, tr, &tr->rng_data, sh->first, B);
    ctm__set_rows(tp, tr, &tr->rng_dropout, sh->first, ctm__draw_labels(tp, tr, &tr->rng_data, &tr->rng_label, sh->first, B));
    b.x_t = ctm__add_noise(tp, &tr->rng_noise, (uint64_t)tr->step, (uint64_t)sh->first, b.x0, b.t);
    return b;
}

// The point at u that the target starts from. It is a constant, and made without dropout.
static ctm_tensor *ctm__x_u(ctm_shard *sh, const ctm_batch *b) {
    ctm_tape *tp = &sh->tape;
    ctm_rows rows = tp->rows;
    ctm_tensor *x_u;
    tp->rows.dropout = NULL;
    tp->recording = 0;
    x_u = sh->tr->cfg.teach(tp, sh->tr, b);
    tp->recording = 1;
    tp->rows = rows;
    ctm__check_own(sh->tr, "teach", x_u, b->x_t, sh->first);
    return x_u;
}

// The configured distance, or the user's.
static ctm_tensor *ctm__measure(ctm_tape *tp, const ctm_trainer *tr, ctm_tensor *a, ctm_tensor *b) {
    ctm_tensor *d;
    if (!tr->distance) return ctm_distance(tp, a, b, tr->cfg.distance, tr->cfg.huber_c);
    d = tr->distance(tr->distance_user, tp, a, b);
    CTM__REQUIRE(d != NULL, "the trainer's distance returned NULL");
    CTM__SHAPES(d->ndim == 1 && d->shape[0] == a->shape[0], "the trainer's distance", "a [B,D] needs a result [B]", a, d);
    return d;
}

// [eq:L_ctm]  L_CTM = E d(x_est, x_target): one shard's part of the batch mean.
static ctm_tensor *ctm__ctm_loss(ctm_shard *sh) {
    ctm_trainer *tr = sh->tr;
    const ctm_config *cfg = &tr->cfg;
    ctm_tape *tp = &sh->tape;
    ctm_net *theta = sh->theta_ctm, *ema = tr->ema[0], *outer = cfg->share_at_s < 1 ? ema : NULL;
    ctm_tensor *x_u = NULL, *est_s = NULL, *x_est = NULL, *target_s = NULL, *x_target = NULL, *d = NULL, *d_s = NULL, *L = NULL;

    // Draw data, the noise levels t > u >= s, and the noised point.
    ctm_batch b = ctm__draw_batch(sh);

    // The teacher walks from t to u.
    x_u = ctm__x_u(sh, &b);

    // The target jumps from u to s, and on to time zero; the estimate jumps from t to s, and on to time zero.
    x_target = ctm_x_target(tp, cfg->target_ema ? ema : theta, outer, x_u, b.u, b.s, &target_s);
    x_est = ctm_x_est(tp, theta, outer, b.x_t, b.t, b.s, &est_s);

    // Compare them at time zero, where a distance is one between samples; or at s, or both ways.
    if (cfg->share_at_s > 0) d_s = ctm__measure(tp, tr, ctm__unit_scale(tp, &cfg->noise, est_s, b.s),
                                                ctm__unit_scale(tp, &cfg->noise, target_s, b.s));
    if (cfg->share_at_s < 1) d = ctm__measure(tp, tr, x_est, x_target);
    if (!d) d = d_s;
    else if (d_s) d = ctm_add(tp, ctm_scale(tp, d, 1 - cfg->share_at_s), ctm_scale(tp, d_s, cfg->share_at_s));
    L = ctm_weighted_mean(tp, d, b.w, cfg->batch);
    return ctm_name(L, "L_ctm");
}

// [eq:L_dsm]  L_DSM = E w(t)·|g(x_t,t,t) - x_0|²/D, w = 1/c_out²: one shard's part. cfg.aim may put something in x_0's place.
static ctm_tensor *ctm__dsm_loss(ctm_shard *sh) {
    ctm_trainer *tr = sh->tr;
    const ctm_config *cfg = &tr->cfg;
    ctm_tape *tp = &sh->tape;
    int B = sh->drows, i;
    ctm_tensor *t = ctm_vector(tp, "sigma", B), *w = ctm_vector(tp, "w", B), *x0 = NULL, *x_t = NULL, *aim = NULL, *g = NULL, *d = NULL;
    const int *label;
    for (i = 0; i < B; i++) {
        double sigma = cfg->level(cfg, (uint64_t)tr->step, (uint64_t)(sh->dfirst + i));
        CTM__REQUIRE(ctm_is_finite(sigma) && sigma > 0, "cfg.level of the recipe \"%s\": row %d has the noise level %g", cfg->recipe,
                     sh->dfirst + i, sigma);
        t->data[i] = (ctm_real)sigma;
        w->data[i] = (ctm_real)ctm_weight_karras(&cfg->noise, sigma, sigma);
    }
    x0 = ctm__draw_data(tp, tr, &tr->rng_dsm_data, sh->dfirst, B);
    label = ctm__draw_labels(tp, tr, &tr->rng_dsm_data, &tr->rng_dsm_label, sh->dfirst, B);
    x_t = ctm__add_noise(tp, &tr->rng_dsm_noise, (uint64_t)tr->step, (uint64_t)sh->dfirst, x0, t);
    ctm__set_rows(tp, tr, NULL, sh->dfirst, label);    // no dropout in the teacher
    tp->recording = 0;
    aim = cfg->aim(tp, tr, x0, x_t, t);
    tp->recording = 1;
    ctm__check_own(tr, "aim", aim, x0, sh->dfirst);
    ctm__set_rows(tp, tr, &tr->rng_dsm_dropout, sh->dfirst, label);
    g = ctm_D_theta(tp, sh->theta_dsm, x_t, t);
    d = ctm_distance(tp, g, aim, CTM_L2, 0);
    return ctm_name(ctm_weighted_mean(tp, d, w, cfg->diagonal_batch), "L_dsm");
}

static ctm_tensor *ctm__logits(ctm_shard *sh, ctm_net *disc, ctm_tensor *x) {
    ctm_tensor *l = disc->forward(&sh->tape, disc, x, NULL, NULL);
    CTM__SHAPES(l->ndim == 2 && l->shape[0] == x->shape[0] && l->shape[1] > 0, "discriminator", "points [B,D] need logits [B,K]", x, l);
    return l;
}

// The student's fake: the estimate of L_CTM.
static ctm_tensor *ctm__fake(ctm_shard *sh, const ctm_batch *b) {
    return ctm_x_est(&sh->tape, sh->theta_gan, sh->tr->ema[0], b->x_t, b->t, b->s, NULL);
}

// L_GAN of one shard: the gradient goes through the frozen discriminator's input into the student.
static ctm_tensor *ctm__gan_loss(ctm_shard *sh) {
    ctm_batch b = ctm__draw_batch(sh);
    ctm_tensor *l = ctm__logits(sh, sh->disc_frozen, ctm__fake(sh, &b));
    return ctm_gan_student_loss(&sh->tape, sh->tr->cfg.gan, l, (double)sh->tr->cfg.batch * l->shape[1]);
}

// L_disc of one shard: fakes are constants, made by the student as it is.
static ctm_tensor *ctm__disc_loss(ctm_shard *sh) {
    ctm_tape *tp = &sh->tape;
    ctm_batch b = ctm__draw_batch(sh);
    ctm_tensor *fake, *l, *l_fake;
    double n;
    size_t i;
    tp->recording = 0;
    fake = ctm__fake(sh, &b);
    tp->recording = 1;
    l = ctm__logits(sh, sh->disc, b.x0);
    l_fake = ctm__logits(sh, sh->disc, fake);
    n = (double)sh->tr->cfg.batch * l->shape[1];
    for (i = 0; i < l->len; i++) {
        sh->disc_real += (double)l->data[i] / n;
        sh->disc_fake += (double)l_fake->data[i] / n;
    }
    return ctm_gan_disc_loss(tp, sh->tr->cfg.gan, l, l_fake, n);
}

// Whose step it is.
enum { CTM__TURN_STUDENT = 1, CTM__TURN_DISC = 2 };
static int ctm__adversary_on(const ctm_trainer *tr) { return tr->cfg.gan != CTM_GAN_NONE && tr->step >= tr->cfg.gan_start; }
static int ctm__turn(const ctm_trainer *tr) {
    if (!ctm__adversary_on(tr)) return CTM__TURN_STUDENT;
    if (tr->cfg.gan_period == 1) return CTM__TURN_STUDENT | CTM__TURN_DISC;
    return (tr->step - tr->cfg.gan_start) % tr->cfg.gan_period == 0 ? CTM__TURN_STUDENT : CTM__TURN_DISC;
}

static void ctm__zero_stretch(void *arg, size_t at, size_t n) { memset((ctm_real *)arg + at, 0, n * sizeof(ctm_real)); }

// One loss on a tape of its own: its value, and its gradient in net->grad.
static double ctm__loss_and_gradient(ctm_shard *sh, ctm_net *net, ctm_tensor *(*loss)(ctm_shard *sh)) {
    ctm_tensor *L;
    ctm_tape_reset(&sh->tape);
    sh->tape.recording = 1;                            // a jump out of CTM_PANIC may have left the step before in the middle
    ctm__in_stretches(sh->tape.ctx, net->len, ctm__zero_stretch, net->grad);
    L = loss(sh);
    ctm_backward(&sh->tape, L);
    return (double)L->data[0];
}

CTM__DEF void ctm_losses_shard(ctm_shard *sh) {
    const ctm_trainer *tr = sh->tr;
    int turn = ctm__turn(tr);
    sh->L_ctm = sh->L_dsm = sh->L_gan = sh->L_disc = sh->disc_real = sh->disc_fake = 0;
    if (turn & CTM__TURN_STUDENT) {
        if (tr->cfg.times && sh->rows > 0)        sh->L_ctm = ctm__loss_and_gradient(sh, sh->theta_ctm, ctm__ctm_loss);
        if (tr->cfg.aim && sh->drows > 0)         sh->L_dsm = ctm__loss_and_gradient(sh, sh->theta_dsm, ctm__dsm_loss);
        if (ctm__adversary_on(tr) && sh->rows > 0) sh->L_gan = ctm__loss_and_gradient(sh, sh->theta_gan, ctm__gan_loss);
    }
    if (turn & CTM__TURN_DISC && sh->rows > 0) sh->L_disc = ctm__loss_and_gradient(sh, sh->disc, ctm__disc_loss);
}

static void ctm__shard_work(void *arg, int i) { ctm_losses_shard(((ctm_trainer *)arg)->shard + i); }

// Linear warm-up, then half a cosine down to final_lr·lr.
static double ctm__learning_rate(const ctm_config *c, long step) {
    double done, x;
    if (c->steps <= 0) return c->lr;
    done = (double)step / (double)c->steps;
    if (c->warmup > 0 && done < c->warmup) return c->lr * ((double)step + 1) / (c->warmup * (double)c->steps + 1);
    if (c->final_lr >= 1 || c->warmup >= 1) return c->lr;
    x = ctm__dmin(1, (done - c->warmup) / (1 - c->warmup));
    return c->lr * (c->final_lr + (1 - c->final_lr) * 0.5 * (1 + cos(3.14159265358979324 * x)));
}

CTM__DEF ctm_trainer *ctm_trainer_new(ctm_arena *a, const ctm_config *cfg, ctm_net *theta, const ctm_denoiser *teacher,
                                      ctm_draw_fn draw, void *user) {
    ctm_processes one;
    one.rank = 0;
    one.count = 1;
    one.sum = NULL;
    one.user = NULL;
    return ctm_trainer_new_among(a, cfg, theta, teacher, draw, user, &one);
}

// Mistakes that can be seen before training begins.
static void ctm__check_new(const ctm_config *cfg, const ctm_net *theta, const ctm_denoiser *teacher, const ctm_processes *all) {
    char fault[300];
    CTM__REQUIRE(all->count > 0 && all->rank >= 0 && all->rank < all->count,
                 "ctm_trainer_new_among: process %d of %d?", all->rank, all->count);
    CTM__REQUIRE(all->count == 1 || all->sum, "ctm_trainer_new_among: %d processes need a function that sums over them", all->count);
    CTM__REQUIRE(all->count <= cfg->shards, "ctm_trainer_new_among: %d processes, but the batch is cut into only %d shards",
                 all->count, cfg->shards);
    CTM__REQUIRE(ctm__config_fits(cfg, fault, sizeof fault), "ctm_trainer_new: the recipe \"%s\": %s", cfg->recipe, fault);
    CTM__REQUIRE(theta->with_s || !cfg->times, "ctm_trainer_new: a network without s cannot jump: use ctm_recipe_teacher");
    CTM__REQUIRE(cfg->aim != ctm_aim_teacher || teacher,
                 "ctm_trainer_new: ctm_aim_teacher needs a teacher: give one, or set cfg.aim = ctm_aim_data");
    CTM__REQUIRE(!teacher || teacher->dim == theta->dim, "ctm_trainer_new: the student has %d dimensions, the teacher %d", theta->dim,
                 teacher ? teacher->dim : 0);
    CTM__REQUIRE(!teacher || !teacher->noise ||
                 (teacher->noise->sigma_min <= cfg->noise.sigma_min && teacher->noise->sigma_max >= cfg->noise.sigma_max),
                 "ctm_trainer_new: the teacher was trained on another range of noise levels than cfg.noise has");
    CTM__REQUIRE(ctm__same_noise(&cfg->noise, &theta->noise),
                 "ctm_trainer_new: cfg.noise is not the network's: it was changed after the network was made");
    CTM__REQUIRE(theta->grad != NULL, "ctm_trainer_new: the student is frozen");
    CTM__REQUIRE(theta->classes == cfg->classes, "ctm_trainer_new: the student knows %d classes, the configuration %d",
                 theta->classes, cfg->classes);
}

// Shard number i of all: its rows of both losses, its arena and tape, its views of the student.
static void ctm__shard_init(ctm_arena *a, ctm_trainer *tr, ctm_shard *sh, int i) {
    const ctm_config *cfg = &tr->cfg;
    char name[32];
    sh->tr = tr;
    sh->first  = (int)((int64_t)cfg->batch * i / cfg->shards);
    sh->rows   = (int)((int64_t)cfg->batch * (i + 1) / cfg->shards) - sh->first;
    sh->dfirst = (int)((int64_t)cfg->diagonal_batch * i / cfg->shards);
    sh->drows  = (int)((int64_t)cfg->diagonal_batch * (i + 1) / cfg->shards) - sh->dfirst;
    snprintf(name, sizeof name, "shard %d", i);
    ctm_arena_init(&sh->arena, a->ctx, name);
    ctm_tape_init(&sh->tape, a->ctx, &sh->arena);
    sh->tape.keep_grads = tr->theta->size == 0;        // images: the gradients of all layers at once would double the memory
    sh->theta_ctm = ctm_net_view(a, tr->theta, 1);
    sh->theta_dsm = ctm_net_view(a, tr->theta, 1);
}

CTM__DEF ctm_trainer *ctm_trainer_new_among(ctm_arena *a, const ctm_config *cfg, ctm_net *theta, const ctm_denoiser *teacher,
                                            ctm_draw_fn draw, void *user, const ctm_processes *all) {
    ctm_trainer *tr = (ctm_trainer *)ctm_alloc(a, sizeof *tr);
    int i, first;
    CTM__REQUIRE(draw != NULL, "ctm_trainer_new: there is no draw function");
    ctm__check_new(cfg, theta, teacher, all);
    tr->ctx = a->ctx;
    tr->cfg = *cfg;
    tr->theta = theta;
    tr->teacher = teacher;
    tr->draw = draw;
    tr->user = user;
    for (i = 0; i < 4 && cfg->ema_rate[i] > 0; i++) tr->ema[tr->emas++] = ctm_net_clone(a, theta);
    tr->self = ctm_net_denoiser(a, tr->ema[0]);
    ctm_opt_init(a, &tr->opt, cfg->optimiser, theta->len, cfg->lr);
    tr->opt.beta2 = cfg->beta2;
    tr->rng_data = ctm_stream(cfg->seed, "data");
    tr->rng_noise = ctm_stream(cfg->seed, "noise");
    tr->rng_dsm_data = ctm_stream(cfg->seed, "dsm.data");
    tr->rng_dsm_noise = ctm_stream(cfg->seed, "dsm.noise");
    tr->rng_label = ctm_stream(cfg->seed, "label.dropout");
    tr->rng_dsm_label = ctm_stream(cfg->seed, "dsm.label.dropout");
    tr->rng_dropout = ctm_stream(cfg->seed, "dropout");
    tr->rng_dsm_dropout = ctm_stream(cfg->seed, "dsm.dropout");
    tr->g_ctm = (ctm_real *)ctm_alloc(a, theta->len * sizeof(ctm_real));
    tr->g_dsm = (ctm_real *)ctm_alloc(a, theta->len * sizeof(ctm_real));
    tr->squares = (double *)ctm_alloc(a, (theta->len / CTM__STRETCH + 1) * sizeof(double));
    tr->all = *all;
    first = (int)((int64_t)cfg->shards * all->rank / all->count);
    tr->shards = (int)((int64_t)cfg->shards * (all->rank + 1) / all->count) - first;
    tr->shard = (ctm_shard *)ctm_alloc(a, (size_t)tr->shards * sizeof(ctm_shard));
    for (i = 0; i < tr->shards; i++) ctm__shard_init(a, tr, tr->shard + i, first + i);
    return tr;
}

CTM__DEF void ctm_trainer_adversary(ctm_arena *a, ctm_trainer *tr, ctm_net *disc) {
    int i;
    CTM__REQUIRE(tr->cfg.gan != CTM_GAN_NONE, "ctm_trainer_adversary: the configuration has gan = CTM_GAN_NONE");
    CTM__REQUIRE(disc->dim == tr->theta->dim, "ctm_trainer_adversary: the discriminator takes %d numbers, the student makes %d",
                 disc->dim, tr->theta->dim);
    CTM__REQUIRE(disc->grad != NULL, "ctm_trainer_adversary: the discriminator is frozen");
    tr->disc = disc;
    ctm_opt_init(a, &tr->disc_opt, CTM_RADAM, disc->len, tr->cfg.gan_lr);
    tr->disc_opt.beta1 = 0.5;                          // the authors' betas for the discriminator
    tr->disc_opt.beta2 = 0.9;
    tr->g_gan = (ctm_real *)ctm_alloc(a, tr->theta->len * sizeof(ctm_real));
    for (i = 0; i < tr->shards; i++) {
        ctm_shard *sh = tr->shard + i;
        sh->theta_gan = ctm_net_view(a, tr->theta, 1);
        sh->disc = ctm_net_view(a, disc, 1);
        sh->disc_frozen = ctm_net_view(a, disc, 0);
    }
}

CTM__DEF void ctm_trainer_free(ctm_trainer *tr) {
    int i;
    for (i = 0; i < tr->shards; i++) ctm_arena_free(&tr->shard[i].arena);
}

// Sums over the processes: of an array, and of up to three values that are parts of batch means.
static int ctm__sum_array(ctm_trainer *tr, size_t n, ctm_real *v) { return tr->all.count == 1 || tr->all.sum(tr->all.user, n, v); }
static int ctm__sum_values(ctm_trainer *tr, double *a, double *b, double *c) {
    ctm_real v[3];
    if (tr->all.count == 1) return 1;
    v[0] = (ctm_real)*a;
    v[1] = (ctm_real)*b;
    v[2] = (ctm_real)*c;
    if (!ctm__sum_array(tr, 3, v)) return 0;
    *a = (double)v[0];
    *b = (double)v[1];
    *c = (double)v[2];
    return 1;
}

static void ctm__sum_stretch(void *arg, size_t at, size_t n) {
    const ctm_trainer *tr = (const ctm_trainer *)arg;
    int i, gan = ctm__adversary_on(tr);
    memset(tr->g_ctm + at, 0, n * sizeof(ctm_real));
    memset(tr->g_dsm + at, 0, n * sizeof(ctm_real));
    if (gan) memset(tr->g_gan + at, 0, n * sizeof(ctm_real));
    for (i = 0; i < tr->shards; i++) {
        const ctm_shard *sh = tr->shard + i;
        if (tr->cfg.times && sh->rows > 0) tr->ctx->kernels->axpy(n, 1, sh->theta_ctm->grad + at, tr->g_ctm + at);
        if (tr->cfg.aim && sh->drows > 0) tr->ctx->kernels->axpy(n, 1, sh->theta_dsm->grad + at, tr->g_dsm + at);
        if (gan && sh->rows > 0) tr->ctx->kernels->axpy(n, 1, sh->theta_gan->grad + at, tr->g_gan + at);
    }
}

// Values and gradients of the student's losses, summed over the shards in order, then over the processes. 0 if that failed.
static int ctm__sum_student(ctm_trainer *tr) {
    const ctm_config *cfg = &tr->cfg;
    size_t len = tr->theta->len;
    int i, gan = ctm__adversary_on(tr);
    ctm__in_stretches(tr->ctx, len, ctm__sum_stretch, tr);
    tr->L_ctm = tr->L_dsm = tr->L_gan = 0;
    for (i = 0; i < tr->shards; i++) {
        const ctm_shard *sh = tr->shard + i;
        tr->L_ctm += sh->L_ctm;
        tr->L_dsm += sh->L_dsm;
        tr->L_gan += sh->L_gan;
    }
    return (!cfg->times || ctm__sum_array(tr, len, tr->g_ctm)) &&
        (!cfg->aim || ctm__sum_array(tr, len, tr->g_dsm)) &&
           (!gan || ctm__sum_array(tr, len, tr->g_gan)) && ctm__sum_values(tr, &tr->L_ctm, &tr->L_dsm, &tr->L_gan);
}

static void ctm__total_stretch(void *arg, size_t at, size_t n) {
    const ctm_trainer *tr = (const ctm_trainer *)arg;
    ctm_real *total = tr->theta->grad + at;
    memcpy(total, tr->g_ctm + at, n * sizeof(ctm_real));
    tr->ctx->kernels->axpy(n, tr->lambda_dsm, tr->g_dsm + at, total);
    if (ctm__adversary_on(tr)) tr->ctx->kernels->axpy(n, tr->lambda_gan, tr->g_gan + at, total);
    tr->squares[at / CTM__STRETCH] = tr->ctx->kernels->sumsq(n, total);
}

// The weights of the losses, and the student's total gradient.
static void ctm__total_gradient(ctm_trainer *tr) {
    const ctm_config *cfg = &tr->cfg;
    const ctm_tensor *last = tr->theta->param[tr->theta->last_weight];
    size_t len = tr->theta->len, at = (size_t)(last->data - tr->theta->theta), i;
    double squares = 0;
    tr->lambda_dsm = !cfg->aim ? 0 : cfg->times ? cfg->lambda_dsm : 1;
    if (cfg->adaptive && cfg->times && cfg->aim)
        tr->lambda_dsm *= ctm_adaptive_weight(tr->g_ctm + at, tr->g_dsm + at, last->len);
    tr->lambda_gan = 0;
    if (ctm__adversary_on(tr)) {
        double lambda = 1;
        if (cfg->adaptive) lambda = ctm__dmax(0.01, ctm__dmin(10, ctm_adaptive_weight(tr->g_ctm + at, tr->g_gan + at, last->len)));
        tr->lambda_gan = cfg->lambda_gan * lambda;
    }
    ctm__in_stretches(tr->ctx, len, ctm__total_stretch, tr);
    for (i = 0; i * CTM__STRETCH < len; i++) squares += tr->squares[i];
    tr->grad_norm = sqrt(squares);
}

// As ctm__sum_student, for the discriminator; its gradient is then in disc->grad.
static int ctm__sum_disc(ctm_trainer *tr) {
    int i;
    memset(tr->disc->grad, 0, tr->disc->len * sizeof(ctm_real));
    tr->L_disc = tr->disc_real = tr->disc_fake = 0;
    for (i = 0; i < tr->shards; i++) {
        const ctm_shard *sh = tr->shard + i;
        tr->L_disc += sh->L_disc;
        tr->disc_real += sh->disc_real;
        tr->disc_fake += sh->disc_fake;
        if (sh->rows > 0) tr->ctx->kernels->axpy(tr->disc->len, 1, sh->disc->grad, tr->disc->grad);
    }
    return ctm__sum_array(tr, tr->disc->len, tr->disc->grad) && ctm__sum_values(tr, &tr->L_disc, &tr->disc_real, &tr->disc_fake);
}

static int ctm__not_finite(ctm_trainer *tr, const char *what) {
    return ctm__fail(tr->ctx, "step %ld: the %s is not finite; nothing was updated", tr->step, what);
}
static int ctm__not_summed(ctm_trainer *tr) {
    return ctm__fail(tr->ctx, "step %ld: the sum over %d processes failed; nothing was updated", tr->step, tr->all.count);
}

static void ctm__update_student(ctm_trainer *tr) {
    const ctm_config *cfg = &tr->cfg;
    size_t len = tr->theta->len;
    ctm_real *total = tr->theta->grad;
    int i;

    // Shorten a gradient that is far too long: Adam forgives its size, but one such step can throw the weights far away.
    if (cfg->clip > 0 && tr->grad_norm > cfg->clip) ctm__scaled(tr->ctx, len, cfg->clip / tr->grad_norm, total, total, 0);

    // Update the student, then its moving averages.
    tr->opt.lr = tr->lr = ctm__learning_rate(cfg, tr->step);
    ctm_opt_step(tr->ctx, &tr->opt, tr->theta->theta, total);
    for (i = 0; i < tr->emas; i++) {
        double rate = cfg->ema_rate[i];
        if (cfg->ema_warmup) rate = ctm__dmin(rate, ((double)tr->step + 1) / ((double)tr->step + 10));
        ctm_ema_step(tr->ctx, len, tr->ema[i]->theta, tr->theta->theta, rate);
    }
}

// What was set after ctm_trainer_new must fit too.
static void ctm__check_trainer(const ctm_trainer *tr) {
    CTM__REQUIRE(!tr->cfg.gan || tr->disc, "ctm_train_step: the configuration asks for an adversary: call ctm_trainer_adversary first");
    CTM__REQUIRE(!tr->label || tr->cfg.classes > 0, "ctm_train_step: the rows have labels, but the configuration has no classes");
    CTM__REQUIRE(tr->label || tr->cfg.classes == 0, "ctm_train_step: the configuration has %d classes, but the trainer no label function",
                 tr->cfg.classes);
}

// [alg:train]  The lines that all shards share: L = L_CTM + lambda_DSM·L_DSM + lambda_GAN·L_GAN, then theta, then its averages.
CTM__DEF int ctm_train_step(ctm_trainer *tr) {
    int turn = ctm__turn(tr);
    ctm__check_trainer(tr);

    // Losses and gradients, shard by shard.
    ctm__parallel_teams(tr->ctx, tr->shards, ctm__shard_work, tr);

    // Their sums, in order, and the total gradient. What is no number changes nothing, neither the student nor the discriminator.
    if (turn & CTM__TURN_STUDENT) {
        if (!ctm__sum_student(tr)) return ctm__not_summed(tr);
        ctm__total_gradient(tr);
        if (!ctm_is_finite(tr->L_ctm)) return ctm__not_finite(tr, "loss L_ctm");
        if (!ctm_is_finite(tr->L_dsm)) return ctm__not_finite(tr, "loss L_dsm");
        if (!ctm_is_finite(tr->L_gan)) return ctm__not_finite(tr, "loss L_gan");
        if (!ctm_is_finite(tr->grad_norm)) return ctm__not_finite(tr, "gradient");
    }
    if (turn & CTM__TURN_DISC) {
        if (!ctm__sum_disc(tr)) return ctm__not_summed(tr);
        if (!ctm_is_finite(tr->L_disc)) return ctm__not_finite(tr, "loss L_disc");
        if (!ctm_is_finite(tr->ctx->kernels->sumsq(tr->disc->len, tr->disc->grad))) return ctm__not_finite(tr, "discriminator's gradient");
    }

    // Those whose turn it is move.
    if (turn & CTM__TURN_STUDENT) ctm__update_student(tr);
    if (turn & CTM__TURN_DISC) ctm_opt_step(tr->ctx, &tr->disc_opt, tr->disc->theta, tr->disc->grad);
    tr->step++;
    return 1;
}

// =====================================================================================================================
// CHAPTER 18. SAMPLERS
//
// A model that jumps from any level to any other can make a sample in one jump. Several jumps are better, since each of them has less
// to do; but then each starts where the one before it ended, and inherits its error. Fresh noise hides an error: a point that is a little
// wrong at level s is, with enough noise on it, as good as any other at the level t' above. On the other hand noise leads back to levels
// that had been left already, so the whole way down gets longer. How much noise is best is a question of the model, so it is a
// number, gamma. From level t, gamma-sampling [alg:gamma] jumps below the next level t' and then adds noise up to it:
//
//        s = sqrt(1-gamma²)·t'        x  <-  G(x,t,s) + gamma·t'·eps
//
// The variances add up to t'² again, so every point has the distribution of its level, for every gamma, if G is right.
// - gamma = 0 adds no noise: a chain of jumps along one path of the ODE. Points keep what their first noise made of them.
// - gamma = 1 jumps to the end, s = 0, and noises again: the multistep sampler of consistency models.
//
// s cannot go below sigma_min; the noise is therefore taken as sqrt(t'² - s²), which is gamma·t' unless s was stopped there. The
// authors' code measures levels from sigma_min instead, s = sqrt(1-gamma²)·(t' - sigma_min) + sigma_min, with noise by the same formula.
// Nothing is added after the last jump.
//
// Every sampler made of jumps is a list of legs: a jump from t down to s, something that is done at s, noise up to the next level. The
// samplers of this chapter differ only in their legs, those of chapter 20 also in what they do at s.
//
// A sampler of your own is a loop over jumps G->jump(tp, G, x, t, s), or over a denoiser's D, in any file. This one takes the slope
// (x - D)/t in the middle of each step, m = sqrt(t·t'), instead of [eq:heun]'s mean of both ends:
//
//        static ctm_tensor *step_along(ctm_tape *tp, const ctm_denoiser *D, ctm_tensor *x, ctm_tensor *at, double t, double way) {
//            ctm_tensor *level = ctm_fill(ctm_vector(tp, "t", x->shape[0]), t);
//            return ctm_add(tp, x, ctm_scale(tp, ctm_sub(tp, at, D->denoise(tp, D, at, level)), way / t));
//        }
//        static ctm_tensor *sample_midpoint(ctm_tape *tp, const ctm_denoiser *D, ctm_tensor *x, int n, const double *ts) {
//            for (int j = 0; j < n; j++) {
//                double m = sqrt(ts[j] * ts[j + 1]);
//                ctm_tensor *middle = step_along(tp, D, x, x, ts[j], m - ts[j]);
//                x = step_along(tp, D, x, middle, m, ts[j + 1] - ts[j]);
//            }
//            return x;
//        }
//
// (With tp->recording = 0 nothing is kept for a gradient; all tensors live until the tape is reset.)
// =====================================================================================================================

CTM__DEF ctm_sampler ctm_sampler_default(void) {
    ctm_sampler how;
    memset(&how, 0, sizeof how);
    how.form = CTM_FORM_PAPER;
    how.S_max = 1e30;
    how.S_noise = 1;
    return how;
}

// n+1 decreasing levels between the ends of z (NULL: any whose squares are floats). A sampler on the score may end at 0.
static int ctm__check_levels(ctm_ctx *ctx, int n, const double *ts, const ctm_noise *z, int to_zero) {
    double lo = z ? z->sigma_min : 1e-18, hi = z ? z->sigma_max : 1e18;
    int i, last;
    if (n < 1) return ctm__fail(ctx, "a sampler needs at least one jump, not %d", n);
    for (i = 0; i < n; i++)
        if (!(ts[i] > ts[i + 1]))
            return ctm__fail(ctx, "noise levels must decrease: level %d is %g, level %d is %g", i, ts[i], i + 1, ts[i + 1]);
    last = to_zero && ts[n] == 0 ? n - 1 : n;
    if (!(ts[last] >= lo * (1 - 1e-9))) return ctm__fail(ctx, "the last noise level is %g; it cannot be below %g", ts[last], lo);
    if (!(ts[0] <= hi * (1 + 1e-9))) return ctm__fail(ctx, "the first noise level is %g; it cannot be above %g", ts[0], hi);
    return 1;
}

static int ctm__check_noise(ctm_ctx *ctx, const ctm_sampler *how, const char *what, double value) {
    if (how->rng || how->noise) return 1;
    return ctm__fail(ctx, "%s is %g, but no stream of noise was given", what, value);
}

static ctm_tensor *ctm__copy_of(ctm_tape *tp, const char *name, const ctm_tensor *x) {
    ctm_tensor *y = ctm_matrix(tp, name, x->shape[0], x->shape[1]);
    memcpy(y->data, x->data, x->len * sizeof(ctm_real));
    return y;
}

// ---- samplers on jumps

typedef struct ctm__leg {
    double t, s;            // the jump
    double known;           // std of the noise on what is known at s (ctm_edit)
    double noise, next;     // std of the noise added at s, and the level that this reaches
} ctm__leg;

typedef struct ctm__walk ctm__walk;
struct ctm__walk {                     // one run of a sampler
    ctm_tape       *tp;
    const ctm_jump *G;
    ctm_sampler     how;
    uint64_t        draws;             // how many noises were drawn
    // What is done at s, before the noise; returns the new x, or NULL with ctm_error. NULL: nothing.
    ctm_tensor   *(*land)(ctm__walk *w, const ctm__leg *leg, int last, ctm_tensor *x);
    const void     *arg;
};

static ctm__walk ctm__walk_of(ctm_tape *tp, const ctm_jump *G, const ctm_sampler *how) {
    ctm__walk w;
    memset(&w, 0, sizeof w);
    w.tp = tp;
    w.G = G;
    w.how = how ? *how : ctm_sampler_default();
    return w;
}

// The next noise of the run, for points like x.
static ctm_tensor *ctm__draw(ctm__walk *w, const ctm_tensor *x) {
    ctm_tensor *eps = ctm_matrix(w->tp, "eps", x->shape[0], x->shape[1]);
    const ctm_sampler *how = &w->how;
    if (how->noise) memcpy(eps->data, how->noise + (size_t)w->draws * eps->len, eps->len * sizeof(ctm_real));
    else ctm_normals(how->rng, w->draws, how->first_row * (uint64_t)x->shape[1], eps->len, eps->data);
    w->draws++;
    return eps;
}

// Walks n legs. Where something is done at s, nothing is recorded.
static ctm_tensor *ctm__jumps(ctm__walk *w, ctm_tensor *x, int n, const ctm__leg *leg) {
    ctm_tape *tp = w->tp;
    int B = x->shape[0], recording = tp->recording, j;
    if (w->land) tp->recording = 0;
    if (!tp->recording) x = ctm__copy_of(tp, "x", x);  // no gradients: one buffer for x, and each jump gives its memory back
    for (j = 0; j < n; j++) {
        ctm_mark m = ctm_arena_mark(tp->arena);
        ctm_tensor *t = ctm_fill(ctm_vector(tp, "t", B), leg[j].t), *s = ctm_fill(ctm_vector(tp, "s", B), leg[j].s);
        ctm_tensor *x_next = w->G->jump(tp, w->G, x, t, s);
        if (w->land) x_next = w->land(w, &leg[j], j == n - 1, x_next);
        if (!x_next) { x = NULL; break; }
        if (leg[j].noise > 0) x_next = ctm_add(tp, x_next, ctm_scale(tp, ctm__draw(w, x), leg[j].noise));
        if (tp->recording) {
            x = x_next;
        } else {
            memcpy(x->data, x_next->data, x->len * sizeof(ctm_real));
            ctm_arena_release(tp->arena, m);
        }
        if (w->how.watch && !w->how.watch(w->how.user, j + 1, leg[j].next, x)) break;
    }
    tp->recording = recording;
    return x;
}

// The legs of [alg:gamma]; NULL with ctm_error if they cannot be walked.
static ctm__leg *ctm__gamma_legs(const ctm__walk *w, int n, const double *ts) {
    double lo = w->G->noise.sigma_min, gamma = w->how.gamma, root;
    ctm_ctx *ctx = w->tp->ctx;
    ctm__leg *leg;
    int j;
    if (!ctm__check_levels(ctx, n, ts, &w->G->noise, 0)) return NULL;
    if (!(gamma >= 0 && gamma <= 1)) { ctm__fail(ctx, "gamma is %g; it must lie in [0,1]", gamma); return NULL; }
    if (gamma > 0 && n > 1 && !ctm__check_noise(ctx, &w->how, "gamma", gamma)) return NULL;
    leg = (ctm__leg *)ctm_alloc(w->tp->arena, (size_t)n * sizeof *leg);
    root = ctm__root_of_difference(1, gamma);
    for (j = 0; j < n; j++) {
        double t_next = leg[j].next = ts[j + 1];
        leg[j].t = ts[j];
        leg[j].s = j == n - 1 ? t_next : w->how.form == CTM_FORM_AUTHORS ? root * (t_next - lo) + lo : ctm__dmax(root * t_next, lo);
        leg[j].noise = gamma > 0 ? ctm__root_of_difference(t_next, leg[j].s) : 0;
    }
    return leg;
}

// [alg:gamma]  x <- G(x, t, s) + sqrt(t'² - s²)·eps with s = sqrt(1-gamma²)·t', for n jumps.
CTM__DEF ctm_tensor *ctm_sample_gamma(ctm_tape *tp, const ctm_jump *G, ctm_tensor *x, int n, const double *ts,
                                      const ctm_sampler *how) {
    ctm__walk w = ctm__walk_of(tp, G, how);
    ctm__leg *leg = ctm__gamma_legs(&w, n, ts);
    return leg ? ctm__jumps(&w, x, n, leg) : NULL;
}

// The two-step sampler [alg:two_step]: two legs with levels of their own, t0 -> t1 with noise up to t2, then t2 -> sigma_min.
CTM__DEF ctm_tensor *ctm_sample_two_step(ctm_tape *tp, const ctm_jump *G, ctm_tensor *x, double t0, double t1, double t2,
                                         const ctm_sampler *how) {
    ctm__walk w = ctm__walk_of(tp, G, how);
    double lo = G->noise.sigma_min;
    ctm__leg leg[2];
    if (!(t0 > t1 && t1 >= lo * (1 - 1e-9) && t2 >= t1 && t2 > lo && ctm__dmax(t0, t2) <= G->noise.sigma_max * (1 + 1e-9))) {
        ctm__fail(tp->ctx, "two steps need %g >= t0 > t1 >= %g and t2 >= t1, not t0 = %g, t1 = %g, t2 = %g", G->noise.sigma_max, lo, t0,
                  t1, t2);
        return NULL;
    }
    if (t2 > t1 && !ctm__check_noise(tp->ctx, &w.how, "t2", t2)) return NULL;
    memset(leg, 0, sizeof leg);
    leg[0].t = t0; leg[0].s = t1; leg[0].noise = ctm__root_of_difference(t2, t1); leg[0].next = t2;
    leg[1].t = t2; leg[1].s = lo; leg[1].next = lo;
    return ctm__jumps(&w, x, 2, leg);
}

// ---- samplers on the score
// A model that knows the score can be sampled like any diffusion model, in small steps along the ODE: by the solvers of chapter 12
// [alg:heun], or by three relatives. One step from t to t' < t, with the slope d = (x - D(x,t))/t:
//
//   [alg:dpm2]       r = ((t^(1/3) + t'^(1/3))/2)³      y = x + (r-t)·d      x' = x + (t'-t)·(y - D(y,r))/r
//   [alg:ancestral]  x' = x + (down-t)·d + up·eps       up = t'·sqrt(t² - t'²)/t,  down = t'²/t,  up² + down² = t'²
//   [alg:ddim]       x' = (t'/t)·x + (1 - t'/t)·D(x,t)  Euler's step written as a jump: [eq:G] with D in place of g
//
// Nothing can be evaluated at level 0, so a Heun step that ends there is Euler's, whose end point is D itself.
//
// EDM's churn [alg:churn] is its remedy for errors, as gamma is the CTM's. Before a step from t in [S_min,S_max] it adds noise up to
// t^ = t·(1 + min(S_churn/n, sqrt(2)-1)), namely S_noise·sqrt(t^² - t²)·eps, and then steps from t^. EDM noises and then denoises;
// a CTM denoises and then noises.

// A score needs a denoiser. The output of a consistency model without s estimates a path's end, not a mean: no score is in it.
static int ctm__check_score(ctm_ctx *ctx, const ctm_denoiser *D, const char *what) {
    if (!D || !D->denoise)
        return ctm__fail(ctx, "%s needs a score, and a model that only jumps has none: give it a denoiser", what);
    if (D->no_score) return ctm__fail(ctx, "%s needs a score, and the consistency model \"%s\" (no s) has none", what, D->name);
    return 1;
}

// One step of [alg:dpm2], [alg:ddim], [alg:ancestral] (without its noise) or [alg:heun].
static void ctm__score_step(ctm_tape *tp, const ctm_denoiser *D, int method, ctm_tensor *x, double t, double t_next) {
    int B = x->shape[0];
    ctm_tensor *from = ctm_fill(ctm_vector(tp, "t", B), t), *to = ctm_fill(ctm_vector(tp, "t_next", B), t_next), *y, *D_t;
    double r = (cbrt(t) + cbrt(t_next)) / 2;
    size_t i;
    switch (method) {
    case CTM_DPM2:
        y = ctm__copy_of(tp, "y", x);
        ctm_fill(to, r * r * r);
        ctm__solver_step(tp, D, CTM_EULER, y, from, to);
        D_t = D->denoise(tp, D, y, to);
        for (i = 0; i < x->len; i++) x->data[i] += (ctm_real)((t_next - t) / (r * r * r)) * (y->data[i] - D_t->data[i]);
        return;
    case CTM_DDIM:
        D_t = D->denoise(tp, D, x, from);
        for (i = 0; i < x->len; i++) x->data[i] = (ctm_real)(t_next / t) * x->data[i] + (ctm_real)((t - t_next) / t) * D_t->data[i];
        return;
    case CTM_ANCESTRAL:
        ctm__solver_step(tp, D, CTM_EULER, x, from, ctm_fill(to, t_next * t_next / t));
        return;
    default:
        ctm__solver_step(tp, D, t_next > 0 ? method : CTM_EULER, x, from, to);
    }
}

static void ctm__noise_onto(ctm__walk *w, ctm_tensor *x, double std) {
    ctm_tensor *eps;
    size_t i;
    if (!(std > 0)) return;
    eps = ctm__draw(w, x);
    for (i = 0; i < x->len; i++) x->data[i] += (ctm_real)std * eps->data[i];
}

static int ctm__check_score_sampler(ctm_ctx *ctx, const ctm_denoiser *D, int method, const ctm_sampler *how) {
    if (!ctm__check_score(ctx, D, "this sampler")) return 0;
    if (method != CTM_HEUN && method != CTM_EULER && (method < CTM_DPM2 || method > CTM_DDIM))
        return ctm__fail(ctx, "%d is no method of a score sampler", method);
    if (!(how->S_churn >= 0 && how->S_noise >= 0 && ctm_is_finite(how->S_noise)))
        return ctm__fail(ctx, "S_churn is %g and S_noise %g; neither can be negative", how->S_churn, how->S_noise);
    if (method == CTM_ANCESTRAL && !how->rng && !how->noise)
        return ctm__fail(ctx, "ancestral steps add noise, but no stream of noise was given");
    return how->S_churn > 0 ? ctm__check_noise(ctx, how, "S_churn", how->S_churn) : 1;
}

// n steps of [alg:heun], [alg:dpm2] or [alg:ddim], each after [alg:churn]'s noise; or of [alg:ancestral], which has its own.
CTM__DEF ctm_tensor *ctm_sample_score(ctm_tape *tp, const ctm_denoiser *D, int method, ctm_tensor *x, int n, const double *ts,
                                      const ctm_sampler *how) {
    ctm__walk w = ctm__walk_of(tp, NULL, how);
    int recording = tp->recording, j;
    double churn = ctm__dmin(w.how.S_churn / n, sqrt(2.0) - 1);
    ctm_tensor *y;
    if (!ctm__check_score_sampler(tp->ctx, D, method, &w.how)) return NULL;
    if (!ctm__check_levels(tp->ctx, n, ts, D->noise, 1)) return NULL;
    tp->recording = 0;
    y = ctm__copy_of(tp, "x", x);
    for (j = 0; j < n; j++) {
        ctm_mark m = ctm_arena_mark(tp->arena);
        double t = ts[j], t_next = ts[j + 1];
        w.draws = (uint64_t)j;                         // step j has noise j, whether those before it used theirs or not
        if (method == CTM_ANCESTRAL) {
            ctm__score_step(tp, D, method, y, t, t_next);
            ctm__noise_onto(&w, y, t_next * ctm__root_of_difference(t, t_next) / t);
        } else {
            double t_hat = churn > 0 && t >= w.how.S_min && t <= w.how.S_max ? t * (1 + churn) : t;
            ctm__noise_onto(&w, y, w.how.S_noise * ctm__root_of_difference(t_hat, t));
            ctm__score_step(tp, D, method, y, t_hat, t_next);
        }
        ctm_arena_release(tp->arena, m);
        if (w.how.watch && !w.how.watch(w.how.user, j + 1, t_next, y)) break;
    }
    tp->recording = recording;
    return y;
}

// [alg:heun]  Without churn: the plain solver, to sample with.
CTM__DEF ctm_tensor *ctm_sample_heun(ctm_tape *tp, const ctm_denoiser *D, ctm_tensor *x, int n, const double *ts) {
    return ctm_sample_score(tp, D, CTM_HEUN, x, n, ts, NULL);
}
CTM__DEF ctm_tensor *ctm_sample_euler(ctm_tape *tp, const ctm_denoiser *D, ctm_tensor *x, int n, const double *ts) {
    return ctm_sample_score(tp, D, CTM_EULER, x, n, ts, NULL);
}

CTM__DEF int ctm_sample_points(ctm_net *net, ctm_real *x, int n, int jumps, double gamma, const ctm_rng *rng) {
    enum { ROWS = 1024 };                              // a piece whose activations stay in cache
    ctm_arena *arena;
    ctm_tape tape;
    ctm_sampler how = ctm_sampler_default();
    ctm_jump *G;
    double *ts;
    ctm_mark m;
    int first, ok = 1;
    if (jumps < 1) return ctm__fail(net->ctx, "a sampler needs at least one jump, not %d", jumps);      // whatever n is
    if (!(gamma >= 0 && gamma <= 1)) return ctm__fail(net->ctx, "gamma is %g; it must lie in [0,1]", gamma);
    arena = ctm__guest(net->arena, "samples");
    ctm_tape_init(&tape, net->ctx, arena);
    tape.recording = 0;
    G = ctm_net_jump(arena, net);
    ts = (double *)ctm_alloc(arena, ((size_t)jumps + 1) * sizeof(double));
    ctm_karras_times(&net->noise, jumps + 1, ts);
    how.gamma = gamma;
    how.rng = rng;
    m = ctm_arena_mark(arena);
    for (first = 0; first < n && ok; first += ROWS) {
        int rows = ctm__imin(ROWS, n - first);
        ctm_real *at = x + (size_t)first * (size_t)net->dim;
        ctm_tensor *in = ctm_matrix(&tape, "x_T", rows, net->dim), *out;
        memcpy(in->data, at, in->len * sizeof(ctm_real));
        how.first_row = (uint64_t)first;
        out = ctm_sample_gamma(&tape, G, in, jumps, ts, &how);
        if (out) memcpy(at, out->data, in->len * sizeof(ctm_real)); else ok = 0;
        ctm_arena_release(arena, m);
    }
    ctm__guest_free(net->arena, arena);
    return ok;
}

// =====================================================================================================================
// CHAPTER 19. LIKELIHOOD
//
// How probable does a model find a point? The ODE can tell, because it carries not only points but their density. Where the paths run
// apart the density falls, and where they run together it rises: along dx/dt = f it changes by  d ln p(x_t)/dt = -div f.  The density
// at the noisy end is known; it is nearly that of N(0, T²). So walk from the data up to T and add up the divergence  [eq:loglik]:
//
//        ln p_0(x_0) = ln p_T(x_T) + integral from 0 to T of div f(x_t,t) dt,     f = (x - D)/t,   div f = (dim - tr dD/dx)/t
//
// The trace is exact with one backward pass for every coordinate of x. The default solver takes 320 slopes, so this is affordable for
// points of the plane and not for images. In high dimension the trace is estimated with a few random probes e whose covariance
// is I  [eq:hutchinson]:
//
//        tr J = E[ e^T J e ]
//
// The probes are signs: their squares are 1, so the diagonal of J adds no variance. (Normal numbers would add some.) A point keeps its
// probes along the whole path, which makes the integrand a smooth function of t, and solvers of high order worth their price.
// =====================================================================================================================

CTM__DEF ctm_likelihood ctm_likelihood_default(void) {
    ctm_likelihood how;
    memset(&how, 0, sizeof how);
    how.method = CTM_RK4;
    how.steps = 80;
    how.tol = 1e-6;
    how.form = CTM_FORM_PAPER;
    return how;
}

// What is carried along the ODE: rows of dim + 1 numbers, a point and the integral of div f so far.
typedef struct ctm__density {
    ctm_tape           *tp;
    const ctm_denoiser *D;
    int                 probes;        // tr J is estimated by the mean of e_p^T J e_p
    const double       *e;             // [probes,n,dim]. NULL: the dim unit vectors; the sum is then the trace itself
} ctm__density;

// The slopes of n rows in ln t, at levels t [n]: x - D and dim - tr dD/dx. The gradient of sum(e·D) is J^T e; it is taken on a tape of
// its own, so that whatever the caller's tape holds stays out of it.
static void ctm__density_slope(const void *arg, size_t n, const double *rows, const double *t, double *slopes) {
    const ctm__density *density = (const ctm__density *)arg;
    double weight = density->e ? 1.0 / density->probes : 1;
    size_t dim = (size_t)density->D->dim, i, d;
    int p;
    for (p = 0; p < density->probes; p++) {
        ctm_mark m = ctm_arena_mark(density->tp->arena);
        ctm_tape tape;
        ctm_tensor *x, *level, *e, *D;
        ctm_tape_init(&tape, density->tp->ctx, density->tp->arena);
        tape.rows = density->tp->rows;
        x = ctm_wants_grad(&tape, ctm_matrix(&tape, "x", (int)n, (int)dim));
        level = ctm_vector(&tape, "t", (int)n);
        e = ctm_matrix(&tape, "probe", (int)n, (int)dim);
        for (i = 0; i < n; i++) {
            level->data[i] = (ctm_real)t[i];
            for (d = 0; d < dim; d++) {
                x->data[i * dim + d] = (ctm_real)rows[i * (dim + 1) + d];
                e->data[i * dim + d] = (ctm_real)(density->e ? density->e[((size_t)p * n + i) * dim + d] : d == (size_t)p);
            }
        }
        D = density->D->denoise(&tape, density->D, x, level);
        CTM__REQUIRE(tape.count > 0, "a likelihood: the denoiser \"%s\" cannot be differentiated", density->D->name);
        ctm_backward(&tape, ctm_name(ctm_weighted_mean(&tape, D, e, 1), "probe^T D"));
        for (i = 0; i < n; i++) {
            double *f = slopes + i * (dim + 1);
            if (p == 0) {
                f[dim] = 0;
                for (d = 0; d < dim; d++) f[d] = (double)x->data[i * dim + d] - (double)D->data[i * dim + d];
            }
            for (d = i * dim; d < (i + 1) * dim; d++) f[dim] -= weight * (double)e->data[d] * (double)x->grad[d];
            if (p == density->probes - 1) f[dim] += (double)dim;
        }
        ctm_arena_release(density->tp->arena, m);
    }
}

// `steps` Karras intervals, upwards in noise. Heun's method and the classical one of fourth order have the same shape: stage k starts
// from rows + c_k·h·(the slope of stage k-1), and the step is h times the mean of the slopes with weights b_k.
static void ctm__density_steps(const ctm__density *density, const ctm_noise *z, const ctm_likelihood *how, size_t n, double *rows) {
    static const double c_heun[2] = {0, 1}, b_heun[2] = {0.5, 0.5};
    static const double c_rk4[4] = {0, 0.5, 0.5, 1}, b_rk4[4] = {1.0 / 6, 1.0 / 3, 1.0 / 3, 1.0 / 6};
    const double *c = how->method == CTM_RK4 ? c_rk4 : c_heun, *b = how->method == CTM_RK4 ? b_rk4 : b_heun;
    int stages = how->method == CTM_RK4 ? 4 : 2, j, k;
    size_t wide = (size_t)density->D->dim + 1, len = n * wide, i;
    double *y = (double *)ctm_alloc(density->tp->arena, (3 * len + n) * sizeof(double)), *f = y + len, *sum = f + len, *t = sum + len;
    double *ts = (double *)ctm_alloc(density->tp->arena, ((size_t)how->steps + 1) * sizeof(double));
    ctm_karras_times(z, how->steps + 1, ts);
    for (j = how->steps; j > 0; j--) {
        double h = ts[j - 1] - ts[j];
        memset(sum, 0, len * sizeof(double));
        for (k = 0; k < stages; k++) {
            double level = ts[j] + c[k] * h;
            for (i = 0; i < n; i++) t[i] = level;
            for (i = 0; i < len; i++) y[i] = rows[i] + c[k] * h * (k ? f[i] : 0);
            ctm__density_slope(density, n, y, t, f);
            for (i = 0; i < len; i++) sum[i] += b[k] * (f[i] /= level);
        }
        for (i = 0; i < len; i++) rows[i] += h * sum[i];
    }
}

// Steps in ln t that choose their own length. Where numbers are floats, D is rough, and below 1e-4 a shorter step is no better.
static void ctm__density_walk(const ctm__density *density, const ctm_noise *z, double tol, size_t n, double *rows) {
    size_t wide = (size_t)density->D->dim + 1;
    double *room = (double *)ctm_alloc(density->tp->arena, ctm__ode_room(n, wide) * sizeof(double));
    ctm__ode ode;
    ode.slope = ctm__density_slope; ode.arg = density; ode.n = n; ode.dim = wide; ode.tol = tol; ode.shortest = 1e-4;
    ctm__ode_begin(&ode, rows, log(z->sigma_min), 0.05, room);
    ctm__ode_walk(&ode, log(z->sigma_max));
    memcpy(rows, ode.x, n * wide * sizeof(double));
}

static double ctm__sign(const ctm_rng *rng, uint64_t step, uint64_t index) { return ctm_uniform(rng, step, index) < 0.5 ? -1 : 1; }

// The probes of a run [probes,n,dim]: recorded, from the stream, or NULL if the trace is exact.
static const double *ctm__probes_of(ctm_arena *a, const ctm_likelihood *how, size_t n, size_t dim) {
    size_t len = n * dim, k;
    double *e;
    if (how->probes == 0 || how->recorded) return how->probes ? how->recorded : NULL;
    e = (double *)ctm_alloc(a, (size_t)how->probes * len * sizeof(double));
    for (k = 0; k < (size_t)how->probes * len; k++) e[k] = ctm__sign(how->rng, k / len, how->first_row * (uint64_t)dim + k % len);
    return e;
}

static int ctm__check_likelihood(ctm_ctx *ctx, const ctm_denoiser *D, const ctm_likelihood *how) {
    if (!ctm__check_score(ctx, D, "a likelihood")) return 0;
    if (how->probes < 0) return ctm__fail(ctx, "a likelihood cannot have %d probes", how->probes);
    if (how->probes && !how->rng && !how->recorded)
        return ctm__fail(ctx, "a likelihood with %d probes needs a stream of random numbers, and none was given", how->probes);
    if (how->method != CTM_ADAPTIVE && how->method != CTM_HEUN && how->method != CTM_RK4)
        return ctm__fail(ctx, "%d is no method of a likelihood", how->method);
    if (how->method == CTM_ADAPTIVE && !(how->tol > 0 && ctm_is_finite(how->tol)))
        return ctm__fail(ctx, "the tolerance of a likelihood is %g; it must be positive", how->tol);
    if (!(how->prior_var >= 0 && ctm_is_finite(how->prior_var)))
        return ctm__fail(ctx, "prior_var of a likelihood is %g; it must not be negative", how->prior_var);
    CTM__REQUIRE(how->method == CTM_ADAPTIVE || how->steps > 0, "ctm_loglik: steps must be positive, not %d", how->steps);
    return 1;
}

// [eq:loglik]  ln p_T(x_T) + integral of div f, with the trace in div f exact or by [eq:hutchinson].
CTM__DEF int ctm_loglik(ctm_tape *tp, const ctm_denoiser *D, const ctm_noise *z, const ctm_likelihood *how, size_t n, const ctm_real *x,
                        double *logp) {
    const ctm_likelihood plain = ctm_likelihood_default();
    double variance, *rows;
    ctm__density density;
    ctm_mark m;
    size_t dim, i, d;
    if (!how) how = &plain;
    if (!ctm__check_likelihood(tp->ctx, D, how)) return 0;
    dim = (size_t)D->dim;
    variance = z->sigma_max * z->sigma_max + how->prior_var;
    m = ctm_arena_mark(tp->arena);
    density.tp = tp; density.D = D;
    density.probes = how->probes ? how->probes : D->dim;
    density.e = ctm__probes_of(tp->arena, how, n, dim);
    rows = (double *)ctm_alloc(tp->arena, n * (dim + 1) * sizeof(double));
    for (i = 0; i < n; i++) for (d = 0; d < dim; d++) rows[i * (dim + 1) + d] = (double)x[i * dim + d];
    if (how->method == CTM_ADAPTIVE) ctm__density_walk(&density, z, how->tol, n, rows);
    else                             ctm__density_steps(&density, z, how, n, rows);
    for (i = 0; i < n; i++) {
        const double *row = rows + i * (dim + 1);
        logp[i] = row[dim] - 0.5 * (double)dim * log(2 * 3.14159265358979324 * variance);
        for (d = 0; d < dim; d++) logp[i] -= row[d] * row[d] / (2 * variance);
    }
    ctm_arena_release(tp->arena, m);
    return 1;
}

// ---- a lower bound
// Seen as a random process that adds noise, the model has a bound on its likelihood that needs no ODE, only the score S at random
// levels  [eq:elbo]:
//
//     ln p_0(x_0) >= E ln N(x_0 + T·eps; 0, T²)  -  Z·E[ |sigma·S|²/2 + div(sigma²·S) ]
//                    -  ( E|x_0 - D(x_0 + q·eps, q)|²/(2q²) - dim/2 )
//
// with S and div at x_0 + sigma·eps, where ln sigma is uniform between ln q and ln T, and Z = 2·ln(T/q). The last bracket is the price
// of the step from level q to the data: what a Gaussian of std q around D costs, less the entropy of the noise put in. q is the level a
// thousandth of the grid above sigma_min, 0.00205. The authors' code forgets the power rho in this bracket alone and takes
// q^(1/rho) = 0.413 there, which makes 8.047 bits per dimension of N(0, 0.5²) look like 7.755, and can hide up to 0.72 bits where the
// data are more concentrated.
//
// The first term's expectation is known, -dim/2·(ln(2·pi·T²) + 1) - |x_0|²/(2T²), so only the other two are estimated. Their levels are
// stratified: draw k of K takes a level from the k-th of K equal parts of the interval. An estimate may exceed ln p; its expectation
// does not.

// The random numbers of row i in draw k: u, then the noise, the residual's noise and the probe, dim numbers each.
static void ctm__elbo_numbers(const ctm_likelihood *how, int draws, int k, size_t n, size_t i, size_t dim, double *out) {
    uint64_t step = 4 * (uint64_t)k, row = how->first_row + i;
    size_t d;
    if (how->recorded) {
        memcpy(out, how->recorded + ((size_t)k * n + i) * (1 + 3 * dim), (1 + 3 * dim) * sizeof(double));
        return;
    }
    out[0] = (k + ctm_uniform(how->rng, step, row)) / draws;
    for (d = 0; d < dim; d++) {
        out[1 + d] = ctm_normal(how->rng, step + 1, row * (uint64_t)dim + d);
        out[1 + dim + d] = ctm_normal(how->rng, step + 2, row * (uint64_t)dim + d);
        out[1 + 2 * dim + d] = ctm__sign(how->rng, step + 3, row * (uint64_t)dim + d);
    }
}

// [eq:elbo]  With f = x - D = -sigma²·S from ctm__density_slope, |sigma·S|² is |f|²/sigma², and div(sigma²·S) is minus f's divergence.
CTM__DEF int ctm_elbo(ctm_tape *tp, const ctm_denoiser *D, const ctm_noise *z, const ctm_likelihood *how, size_t n,
                      const ctm_real *x0, double *bound) {
    int draws = how->probes ? how->probes : 1, recording = tp->recording, k;
    double T = z->sigma_max, q, q_residual, Z, *number, *rows, *slopes, *sigma, *e;
    ctm_noise thousand = *z;
    ctm__density density;
    ctm_mark m = ctm_arena_mark(tp->arena);
    size_t dim, wide, i, d;
    if (!ctm__check_likelihood(tp->ctx, D, how)) return 0;
    if (!how->rng && !how->recorded) return ctm__fail(tp->ctx, "a likelihood's bound needs a stream of random numbers, and none was given");
    dim = (size_t)D->dim;
    wide = dim + 1;
    thousand.N = 1001;
    q = ctm_t_of_index(&thousand, 999);
    q_residual = how->form == CTM_FORM_AUTHORS ? pow(q, 1 / z->rho) : q;
    Z = 2 * log(T / q);
    number = (double *)ctm_alloc(tp->arena, (1 + 3 * dim + n * (2 * wide + 1 + dim)) * sizeof(double));
    rows = number + 1 + 3 * dim; slopes = rows + n * wide; sigma = slopes + n * wide; e = sigma + n;
    density.tp = tp; density.D = D; density.probes = 1; density.e = e;
    for (i = 0; i < n; i++) bound[i] = -0.5 * (double)dim * (log(2 * 3.14159265358979324 * T * T) + 1);
    for (i = 0; i < n * dim; i++) bound[i / dim] -= (double)x0[i] * (double)x0[i] / (2 * T * T);
    tp->recording = 0;
    for (k = 0; k < draws; k++) {
        ctm_mark draw = ctm_arena_mark(tp->arena);
        ctm_tensor *x_q = ctm_matrix(tp, "x_q", (int)n, (int)dim), *t_q = ctm_fill(ctm_vector(tp, "q", (int)n), q_residual), *y;
        for (i = 0; i < n; i++) {
            ctm__elbo_numbers(how, draws, k, n, i, dim, number);
            sigma[i] = q * pow(T / q, number[0]);
            for (d = 0; d < dim; d++) {
                double x = (double)x0[i * dim + d];
                rows[i * wide + d] = x + sigma[i] * number[1 + d];
                x_q->data[i * dim + d] = (ctm_real)(x + q_residual * number[1 + dim + d]);
                e[i * dim + d] = number[1 + 2 * dim + d];
            }
        }
        ctm__density_slope(&density, n, rows, sigma, slopes);
        y = D->denoise(tp, D, x_q, t_q);
        for (i = 0; i < n; i++) {
            const double *f = slopes + i * wide;
            double score = 0, residual = 0;
            for (d = 0; d < dim; d++) {
                double miss = (double)x0[i * dim + d] - (double)y->data[i * dim + d];
                score += f[d] * f[d] / (sigma[i] * sigma[i]);
                residual += miss * miss / (q_residual * q_residual);
            }
            bound[i] -= (Z * (score / 2 - f[dim]) + (residual - (double)dim) / 2) / draws;
        }
        ctm_arena_release(tp->arena, draw);
    }
    tp->recording = recording;
    ctm_arena_release(tp->arena, m);
    return 1;
}

// [eq:bits] A density per unit of the data is per_unit^-dim times the model's:  bits = -ln p/(dim·ln 2) + log2(per_unit).
CTM__DEF double ctm_bits_per_dim(double logp, int dim, double per_unit) { return (log(per_unit) - logp / dim) / log(2.0); }

// =====================================================================================================================
// CHAPTER 20. EDITING AND GUIDANCE
//
// What if a part of the sample is known beforehand, or if some samples are liked better than others? The model need not be trained
// for it. A jump lands on a level s at which the point is still noise and data mixed, and whatever is done to it there, the later jumps
// turn into something consistent. Editing puts back what is known; guidance moves the point to where a loss is lower. Both are the
// walk of chapter 18 with something to do at s.
//
// What is known of x are some components of y = A·x, with an orthogonal A. (For a mask, A = I.) After a jump to s  [alg:edit]
//
//        x  <-  A^T·( known components of A·(ref + k·eps),  other components of A·x )          then noise as in [alg:gamma]
//
// The known part has level sigma_min as it is, and k = sqrt(s² - sigma_min²) brings it to level s, where the rest is. After the last jump
// k is 0, so the known part comes out exactly. The authors' form has k = s (0 at gamma = 1), their shifted s, and noise gamma·t' even
// after the last jump (sqrt(t'² - s²) at gamma = 1). Where their code gives the network no s at all (inpainting at gamma = 1; colouring
// and enlarging always), s is sigma_min here: without an s a CTM has never learned anything.
// =====================================================================================================================

CTM__DEF ctm_known ctm_known_mask(int dim, const unsigned char *mask, int per_row) {
    ctm_known known;
    memset(&known, 0, sizeof known);
    known.dim = dim;
    known.mask = mask;
    known.per_row = per_row;
    return known;
}

// An average a·x is made a component by a mirror. With a of length 1, H = I - 2·v·v^T with v along a - (1,0,..) swaps a with the first
// axis, so the first component of H·x is a·x; and H is its own inverse and transpose, so it serves both ways.
typedef struct ctm__mirror { int dim, m, *index; double *v; } ctm__mirror;

static void ctm__reflect(void *user, int inverse, const ctm_real *in, ctm_real *out) {
    const ctm__mirror *mirror = (const ctm__mirror *)user;
    int g, k;
    (void)inverse;
    for (g = 0; g < mirror->dim; g += mirror->m) {
        const int *index = mirror->index + g;
        double along = 0;
        for (k = 0; k < mirror->m; k++) along += mirror->v[k] * (double)in[index[k]];
        for (k = 0; k < mirror->m; k++) out[index[k]] = (ctm_real)((double)in[index[k]] - 2 * along * mirror->v[k]);
    }
}

CTM__DEF ctm_known ctm_known_averages(ctm_arena *a, int dim, int m, const int *index, const double *w) {
    ctm__mirror *mirror = (ctm__mirror *)ctm_alloc(a, sizeof *mirror);
    unsigned char *mask = (unsigned char *)ctm_alloc(a, (size_t)dim), *seen = (unsigned char *)ctm_alloc(a, (size_t)dim);
    ctm_known known = ctm_known_mask(dim, mask, 0);
    double length = 0, v2 = 0;
    int i;
    CTM__REQUIRE(m > 0 && dim % m == 0, "ctm_known_averages: %d components do not make groups of %d", dim, m);
    mirror->dim = dim;
    mirror->m = m;
    mirror->index = (int *)ctm_alloc(a, (size_t)dim * sizeof(int));
    mirror->v = (double *)ctm_alloc(a, (size_t)m * sizeof(double));
    for (i = 0; i < dim; i++) {
        int at = mirror->index[i] = index ? index[i] : i;
        CTM__REQUIRE(at >= 0 && at < dim && !seen[at], "ctm_known_averages: component %d is outside of 0..%d, or in two groups", at,
                     dim - 1);
        seen[at] = 1;
        if (i % m == 0) mask[at] = 1;
    }
    for (i = 0; i < m; i++) length += w[i] * w[i];
    CTM__REQUIRE(length > 0 && ctm_is_finite(length), "ctm_known_averages: an average needs weights that are finite and not all zero");
    for (i = 0; i < m; i++) { mirror->v[i] = w[i] / sqrt(length) - (i == 0); v2 += mirror->v[i] * mirror->v[i]; }
    for (i = 0; i < m && v2 > 0; i++) mirror->v[i] /= sqrt(v2);
    known.transform = ctm__reflect;
    known.user = mirror;
    return known;
}

CTM__DEF ctm_known ctm_known_grey(ctm_arena *a, int pixels) {
    static const double luminance[3] = {0.2989, 0.5870, 0.1140};
    return ctm_known_averages(a, 3 * pixels, 3, NULL, luminance);
}

CTM__DEF ctm_known ctm_known_patches(ctm_arena *a, int size, int channels, int p) {
    int dim = size * size * channels, *index = (int *)ctm_alloc(a, (size_t)dim * sizeof(int)), n = 0, y, x, c, i;
    double *w = (double *)ctm_alloc(a, (size_t)(p > 0 ? p * p : 1) * sizeof(double));
    CTM__REQUIRE(p > 0 && size % p == 0, "ctm_known_patches: %d pixels do not make patches of %d", size, p);
    for (i = 0; i < p * p; i++) w[i] = 1;
    for (y = 0; y < size; y += p)
        for (x = 0; x < size; x += p)
            for (c = 0; c < channels; c++)
                for (i = 0; i < p * p; i++) index[n++] = ((y + i / p) * size + x + i % p) * channels + c;
    return ctm_known_averages(a, dim, p * p, index, w);
}

// Puts the known components of ref into x, both [B,dim], in place.
static void ctm__put_known(ctm_tape *tp, const ctm_known *known, const ctm_tensor *ref, ctm_tensor *x) {
    size_t dim = (size_t)known->dim, d;
    ctm_mark m = ctm_arena_mark(tp->arena);
    ctm_real *y = (ctm_real *)ctm_alloc(tp->arena, 2 * dim * sizeof(ctm_real)), *y_ref = y + dim;
    int i;
    for (i = 0; i < x->shape[0]; i++) {
        const unsigned char *mask = known->mask + (known->per_row ? (size_t)i * dim : 0);
        ctm_real *row = x->data + (size_t)i * dim;
        const ctm_real *row_ref = ref->data + (size_t)i * dim;
        if (!known->transform) {
            for (d = 0; d < dim; d++) if (mask[d]) row[d] = row_ref[d];
            continue;
        }
        known->transform(known->user, 0, row, y);
        known->transform(known->user, 0, row_ref, y_ref);
        for (d = 0; d < dim; d++) if (mask[d]) y[d] = y_ref[d];
        known->transform(known->user, 1, y, row);
    }
    ctm_arena_release(tp->arena, m);
}

typedef struct ctm__edit { const ctm_known *known; ctm_tensor *ref; } ctm__edit;

static ctm_tensor *ctm__edit_land(ctm__walk *w, const ctm__leg *leg, int last, ctm_tensor *x) {
    const ctm__edit *edit = (const ctm__edit *)w->arg;
    ctm_tensor *y = ctm__copy_of(w->tp, "x", x), *ref = edit->ref;
    double c = w->how.gamma == 1 ? edit->known->clamp : 0;
    size_t i;
    (void)last;
    for (i = 0; i < y->len && c > 0; i++) y->data[i] = (ctm_real)ctm__dmin(c, ctm__dmax(-c, (double)y->data[i]));
    if (leg->known > 0) ref = ctm_add(w->tp, ref, ctm_scale(w->tp, ctm__draw(w, y), leg->known));
    ctm__put_known(w->tp, edit->known, ref, y);
    return y;
}

// A leg of gamma-sampling with the noise of the known part. The authors' form has levels and noise of its own, in the last leg, too.
static void ctm__edit_leg(ctm__leg *leg, double lo, const ctm_sampler *how) {
    double gamma = how->gamma, t_next = leg->next;
    if (how->form == CTM_FORM_AUTHORS) {
        leg->s = ctm__root_of_difference(1, gamma) * (t_next - lo) + lo;
        leg->known = gamma < 1 ? leg->s : 0;
        leg->noise = gamma < 1 ? gamma * t_next : ctm__root_of_difference(t_next, lo);
    } else {
        leg->known = ctm__root_of_difference(leg->s, lo);
    }
}

// [alg:edit]  The legs of gamma-sampling; after each jump the known components of A·x become ref's.
CTM__DEF ctm_tensor *ctm_edit(ctm_tape *tp, const ctm_jump *G, const ctm_known *known, ctm_tensor *ref, ctm_tensor *x, int n,
                              const double *ts, const ctm_sampler *how) {
    ctm__walk w = ctm__walk_of(tp, G, how);
    ctm__leg *leg = ctm__gamma_legs(&w, n, ts);
    ctm__edit edit;
    int j, noises = 0;
    CTM__SHAPES(x->ndim == 2 && x->shape[1] == known->dim && ctm__same_shape(x, ref), "ctm_edit",
                "x and ref must be [B,D] of what is known", x, ref);
    if (!leg) return NULL;
    for (j = 0; j < n; j++) {
        ctm__edit_leg(&leg[j], G->noise.sigma_min, &w.how);
        noises += leg[j].known > 0 || leg[j].noise > 0;
    }
    if (noises && !ctm__check_noise(tp->ctx, &w.how, "the first noise level", ts[0])) return NULL;
    edit.known = known;
    edit.ref = ref;
    w.land = ctm__edit_land;
    w.arg = &edit;
    return ctm__jumps(&w, x, n, leg);
}

// [alg:stroke]  A drawing is no sample of the data, but with enough noise on it nobody can tell. What the noise drowned is made anew,
// and what it left, the large shapes, is kept.
CTM__DEF ctm_tensor *ctm_stroke(ctm_tape *tp, const ctm_jump *G, ctm_tensor *ref, int n, const double *ts, const ctm_sampler *how) {
    ctm__walk w = ctm__walk_of(tp, G, how);
    ctm__leg *leg = ctm__gamma_legs(&w, n, ts);
    if (!leg || !ctm__check_noise(tp->ctx, &w.how, "the first noise level", ts[0])) return NULL;
    return ctm__jumps(&w, ctm_add(tp, ref, ctm_scale(tp, ctm__draw(&w, ref), ts[0])), n, leg);     // x_t = ref + t·eps
}

// ---- guidance
// After every jump but the last, some steps lead down the gradient of a loss c  [eq:guide]:
//
//        x  <-  x - scale·s·grad c(x)
//
// Or, with a score that keeps the point near the data, they are Langevin steps: the paper's trajectory optimisation  [alg:trajectory]:
//
//        v = score(x,s) - scale·(|score|/|grad c|)·grad c        h = 2·(snr·|eps|/|v|)²        x  <-  x + h·v + sqrt(2h)·eps
//
// |score|/|grad c| is each point's own, so that with scale = 1 loss and data pull equally hard; h is the batch's, from mean norms.
// With scale = 0 these steps only keep points where the data are, which repairs what bad jumps did.

CTM__DEF ctm_guide ctm_guide_default(void) {
    ctm_guide guide;
    memset(&guide, 0, sizeof guide);
    guide.scale = 1;
    guide.steps = 1;
    guide.snr = 0.1;
    return guide;
}

static int ctm__check_loss(ctm_ctx *ctx, const ctm_tensor *c, int recorded) {
    char shape[64];
    if (!c) return ctm__fail(ctx, "the guidance loss returned nothing");
    if (c->len != 1) {
        ctm_shape_text(c, shape, sizeof shape);
        return ctm__fail(ctx, "the guidance loss must be a scalar, but \"%s\" is %s", c->name, shape);
    }
    return recorded ? 1 : ctm__fail(ctx, "the guidance loss does not depend on x");
}

// grad c at x, on a tape of its own; NULL with ctm_error if the loss is no scalar that depends on x.
static ctm_tensor *ctm__loss_gradient(ctm_tape *tp, const ctm_guide *guide, const ctm_tensor *x, double t) {
    ctm_tensor *grad = ctm_matrix(tp, "grad c", x->shape[0], x->shape[1]), *leaf, *c;
    ctm_mark m = ctm_arena_mark(tp->arena);
    ctm_tape own;
    ctm_tape_init(&own, tp->ctx, tp->arena);
    own.rows = tp->rows;
    leaf = ctm_wants_grad(&own, ctm__copy_of(&own, "x", x));
    c = guide->loss(guide->user, &own, leaf, t);
    if (ctm__check_loss(tp->ctx, c, own.count)) {
        ctm_backward(&own, c);
        memcpy(grad->data, leaf->grad, x->len * sizeof(ctm_real));
    } else {
        grad = NULL;
    }
    ctm_arena_release(tp->arena, m);
    return grad;
}

static double ctm__row_norm(const ctm_tensor *x, int row) {
    size_t D = (size_t)x->shape[1], d;
    double sum = 0;
    for (d = (size_t)row * D; d < ((size_t)row + 1) * D; d++) sum += (double)x->data[d] * (double)x->data[d];
    return sqrt(sum);
}

static double ctm__mean_norm(const ctm_tensor *x) {
    double sum = 0;
    int i;
    for (i = 0; i < x->shape[0]; i++) sum += ctm__row_norm(x, i);
    return sum / x->shape[0];
}

static void ctm__langevin(ctm__walk *w, const ctm_guide *guide, ctm_tensor *x, double s, const ctm_tensor *grad) {
    int B = x->shape[0], i;
    size_t D = (size_t)x->shape[1], d;
    ctm_tensor *v = ctm__copy_of(w->tp, "v", ctm_score(w->tp, guide->D, x, ctm_fill(ctm_vector(w->tp, "s", B), s)));
    ctm_tensor *eps = ctm__draw(w, x);
    double h;
    for (i = 0; i < B; i++) {
        double size = ctm__row_norm(grad, i), pull = size > 0 ? guide->scale * ctm__row_norm(v, i) / size : 0;
        for (d = (size_t)i * D; d < ((size_t)i + 1) * D; d++) v->data[d] -= (ctm_real)pull * grad->data[d];
    }
    h = ctm__mean_norm(v);
    if (!(h > 0)) return;                              // nothing pulls anywhere
    h = guide->snr * ctm__mean_norm(eps) / h;
    h = 2 * h * h;
    for (d = 0; d < x->len; d++) x->data[d] += (ctm_real)h * v->data[d] + (ctm_real)sqrt(2 * h) * eps->data[d];
}

static ctm_tensor *ctm__guide_land(ctm__walk *w, const ctm__leg *leg, int last, ctm_tensor *x) {
    const ctm_guide *guide = (const ctm_guide *)w->arg;
    ctm_tensor *y = ctm__copy_of(w->tp, "x", x);
    size_t d;
    int k;
    for (k = 0; k < guide->steps && !last; k++) {
        ctm_mark m = ctm_arena_mark(w->tp->arena);
        ctm_tensor *grad = ctm__loss_gradient(w->tp, guide, y, leg->s);
        if (!grad) return NULL;
        if (guide->D) ctm__langevin(w, guide, y, leg->s, grad);
        else for (d = 0; d < y->len; d++) y->data[d] -= (ctm_real)(guide->scale * leg->s) * grad->data[d];
        ctm_arena_release(w->tp->arena, m);
    }
    return y;
}

static int ctm__check_guide(ctm_ctx *ctx, const ctm_guide *guide, int n, const ctm_sampler *how) {
    if (!guide->loss || guide->steps < 0) return ctm__fail(ctx, "a guide needs a loss and steps >= 0, not %d", guide->steps);
    if (!ctm_is_finite(guide->scale) || !(guide->snr >= 0 && ctm_is_finite(guide->snr)))
        return ctm__fail(ctx, "a guide's scale is %g and its snr %g; both must be finite, and snr not negative", guide->scale, guide->snr);
    if (!guide->D) return 1;
    if (!ctm__check_score(ctx, guide->D, "trajectory optimisation")) return 0;
    return guide->steps && n > 1 ? ctm__check_noise(ctx, how, "the number of Langevin steps", guide->steps) : 1;
}

// [eq:guide] [alg:trajectory]  The legs of gamma-sampling; after each jump but the last, guide->steps steps down the loss.
CTM__DEF ctm_tensor *ctm_sample_guided(ctm_tape *tp, const ctm_jump *G, const ctm_guide *guide, ctm_tensor *x, int n,
                                       const double *ts, const ctm_sampler *how) {
    ctm__walk w = ctm__walk_of(tp, G, how);
    ctm__leg *leg = ctm__gamma_legs(&w, n, ts);
    if (!leg || !ctm__check_guide(tp->ctx, guide, n, &w.how)) return NULL;
    w.land = ctm__guide_land;
    w.arg = guide;
    return ctm__jumps(&w, x, n, leg);
}

// ---- rejection
// [alg:reject]  Make more samples than are wanted, let a classifier judge them, and keep the best. With one jump a sample, throwing
// away a share r of them costs 1/(1-r) jumps for each that is kept, far below what guidance costs a diffusion model. Which class is
// wanted is a matter of tp->rows; the callback returns its log-probability.

// [alg:reject]  All samples are made and judged together.
CTM__DEF ctm_tensor *ctm_sample_reject(ctm_tape *tp, const ctm_jump *G, ctm_tensor *x, int n, const double *ts,
                                       const ctm_sampler *how, int keep, ctm_judge_fn judge, void *user) {
    int M = x->shape[0], i, k, *index;
    double *score;
    ctm_tensor *y;
    if (keep < 0 || keep > M) { ctm__fail(tp->ctx, "%d of %d samples cannot be kept", keep, M); return NULL; }
    y = ctm_sample_gamma(tp, G, x, n, ts, how);
    if (!y) return NULL;
    score = (double *)ctm_alloc(tp->arena, (size_t)M * sizeof(double));
    index = (int *)ctm_alloc(tp->arena, (size_t)M * sizeof(int));
    judge(user, y, score);
    for (i = 0; i < M; i++) {                          // insertion costs little beside what each sample cost
        if (!ctm_is_finite(score[i])) score[i] = -HUGE_VAL;              // what is no number comes last
        for (k = i; k > 0 && score[i] > score[index[k - 1]]; k--) index[k] = index[k - 1];
        index[k] = i;
    }
    return ctm_gather_rows(tp, y, index, keep);
}

// ---- guidance by the label
// A network learns p(x_0 | label) and, from the rows whose label was dropped, p(x_0). Classifier-free guidance goes from the one
// past the other [eq:guidance]:      g_w = w·g(label) + (1-w)·g(no label).
typedef struct ctm__guidance { ctm_net *net; double w; } ctm__guidance;

static ctm__guidance *ctm__guidance_new(ctm_arena *a, const ctm_net *net, double w) {
    ctm__guidance *q = (ctm__guidance *)ctm_alloc(a, sizeof *q);
    CTM__REQUIRE(net->classes > 0, "guidance: the network \"%s\" knows no classes", net->kind);
    CTM__REQUIRE(ctm_is_finite(w), "guidance: the weight must be a number");
    q->net = ctm_net_view(a, net, 0);
    q->w = w;
    return q;
}

// From here on no row has a label. Returns what to put back into tp->rows.
static ctm_rows ctm__drop_labels(ctm_tape *tp) {
    ctm_rows rows = tp->rows;
    tp->rows.label = NULL;
    return rows;
}

// w·a + (1-w)·b, where a or b is NULL if its weight is zero.
static ctm_tensor *ctm__guided(ctm_tape *tp, double w, ctm_tensor *a, ctm_tensor *b, const ctm_tensor *t) {
    if (!a || !b) return a ? a : b;
    return ctm_mix_rows(tp, ctm_fill(ctm__coefficients(tp, "w", t), w), a, ctm_fill(ctm__coefficients(tp, "1-w", t), 1 - w), b);
}

static ctm_tensor *ctm__guided_jump(ctm_tape *tp, const ctm_jump *self, ctm_tensor *x, ctm_tensor *t, ctm_tensor *s) {
    const ctm__guidance *q = (const ctm__guidance *)self->impl;
    ctm_tensor *with = q->w != 0 ? ctm_G_theta(tp, q->net, x, t, s) : NULL, *without;
    ctm_rows rows = ctm__drop_labels(tp);
    without = q->w != 1 ? ctm_G_theta(tp, q->net, x, t, s) : NULL;
    tp->rows = rows;
    return ctm__guided(tp, q->w, with, without, t);
}

// [eq:guidance]  G is affine in g, so mixing G's mixes g's.
CTM__DEF ctm_jump *ctm_guided_jump(ctm_arena *a, const ctm_net *net, double w) {
    ctm__guidance *q = ctm__guidance_new(a, net, w);
    ctm_jump *G = ctm_net_jump(a, q->net);
    G->name = "guided ctm";
    G->impl = q;
    G->jump = ctm__guided_jump;
    return G;
}

static ctm_tensor *ctm__guided_denoise(ctm_tape *tp, const ctm_denoiser *self, ctm_tensor *x, ctm_tensor *t) {
    const ctm__guidance *q = (const ctm__guidance *)self->impl;
    ctm_tensor *with = q->w != 0 ? ctm_D_theta(tp, q->net, x, t) : NULL, *without;
    ctm_rows rows = ctm__drop_labels(tp);
    without = q->w != 1 ? ctm_D_theta(tp, q->net, x, t) : NULL;
    tp->rows = rows;
    return ctm__guided(tp, q->w, with, without, t);
}

CTM__DEF ctm_denoiser *ctm_guided_denoiser(ctm_arena *a, const ctm_net *net, double w) {
    ctm__guidance *q = ctm__guidance_new(a, net, w);
    ctm_denoiser *D = ctm_net_denoiser(a, q->net);
    D->name = "guided network";
    D->impl = q;
    D->denoise = ctm__guided_denoise;
    return D;
}

// =====================================================================================================================
// CHAPTER 21. FILES: WEIGHTS AND CHECKPOINTS
//
// Weights and checkpoints are kept as safetensors, because every tool that has weights reads them, and because the format is simple
// enough to be checked. Eight bytes have the length of a JSON header; the header has name, type, shape and place of every tensor and a
// map of strings, the metadata; then come the numbers, little-endian. All bytes are put together by hand, and numbers in text have a
// point in every language, so a file means the same on every machine.
//
// Reading believes nothing. Every length is checked against the file before memory is taken for it, which therefore stays in
// proportion to the file, and a network is read whole or left as it was. What would not be read again is not written. Writing goes to
// PATH.tmp, which takes PATH's name only when it is complete on the disk: a run that is killed leaves the old file or the new one.
// =====================================================================================================================

#ifndef CTM_NO_STDIO

// ---- a file that gets its name when it is complete
// Systems differ in how a file is opened and looked at, how it is held so that others can tell, what a new file takes over from the old
// one, when it is on the disk, and how one file takes the place of another. These things stand here once for each system.

#if defined(_WIN32)

// The few functions of the system that are used here. <windows.h> would bring macros such as min and far.
#ifdef __cplusplus
extern "C" {
#endif
struct _SECURITY_ATTRIBUTES;
__declspec(dllimport) int           __stdcall MultiByteToWideChar(unsigned, unsigned long, const char *, int, wchar_t *, int);
__declspec(dllimport) void *        __stdcall CreateFileW(const wchar_t *, unsigned long, unsigned long, struct _SECURITY_ATTRIBUTES *,
                                                          unsigned long, unsigned long, void *);
__declspec(dllimport) int           __stdcall MoveFileExW(const wchar_t *, const wchar_t *, unsigned long);
__declspec(dllimport) unsigned long __stdcall GetLastError(void);
__declspec(dllimport) void          __stdcall Sleep(unsigned long);
#ifdef __cplusplus
}
#endif
typedef wchar_t ctm__wide_path[CTM_PATH + 16];

// A path in the system's characters of 16 bits. A path that is no UTF-8 is taken to be in the machine's own code page.
static int ctm__wide(wchar_t *out, const char *path) {
    if (MultiByteToWideChar(65001, 8, path, -1, out, CTM_PATH + 16) > 0) return 1;
    if (MultiByteToWideChar(0, 0, path, -1, out, CTM_PATH + 16) > 0) return 1;
    errno = ENAMETOOLONG;
    return 0;
}

// The system's last error as errno; 32 and 33 are "another has it open".
static int ctm__windows_error(void) {
    const unsigned long e = GetLastError();
    errno = e == 2 || e == 3 || e == 123 ? ENOENT : e == 5 || e == 19 ? EACCES : e == 32 || e == 33 ? EAGAIN :
            e == 39 || e == 112 ? ENOSPC : e == 206 ? ENAMETOOLONG : EIO;
    return -1;
}

CTM__DEF ctm_kind ctm_path_kind(const char *path) {
    ctm__wide_path wide;
    struct _stat64 s;
    if (!ctm__wide(wide, path) || _wstat64(wide, &s) != 0) return CTM_NOTHING;
    return (s.st_mode & _S_IFMT) == _S_IFREG ? CTM_FILE : (s.st_mode & _S_IFMT) == _S_IFDIR ? CTM_FOLDER : CTM_DEVICE;
}

CTM__DEF FILE *ctm_fopen(const char *path, const char *mode) {
    ctm__wide_path wide;
    wchar_t how[8];
    int i;
    for (i = 0; i < 7 && mode[i]; i++) how[i] = (wchar_t)mode[i];
    how[i] = 0;
    return ctm__wide(wide, path) ? _wfopen(wide, how) : NULL;
}

static int ctm__remove(const char *path) {
    ctm__wide_path wide;
    return ctm__wide(wide, path) ? _wremove(wide) : -1;
}

// While the file is open, others may read, rename and remove it, but not open it for writing. That alone is the lock.
CTM__DEF int ctm_hold(const char *path, int trust) {
    ctm__wide_path wide;
    void *h;
    (void)trust;
    if (!ctm__wide(wide, path)) return -1;
    h = CreateFileW(wide, 0xC0000000ul /* read, write */, 5 /* others: read, rename */, NULL, 2 /* made anew */, 0x80, NULL);
    if (h == (void *)(intptr_t)-1) return ctm__windows_error();
    return _open_osfhandle((intptr_t)h, _O_BINARY);
}

static int ctm__follow(char *path) { (void)path; return 1; }                                   // a link is replaced, here
// 0 if the file may not be written.
static int ctm__as_before(const char *path, const char *tmp) {
    ctm__wide_path wide;
    (void)tmp;
    return ctm__wide(wide, path) && (_waccess(wide, 0) != 0 || _waccess(wide, 2) == 0);
}

static FILE *ctm__stream(int fd, const char *path) { (void)path; return _fdopen(fd, "wb"); }
static int ctm__sync(int fd) { return _commit(fd) == 0; }
static void ctm__close(int fd) { _close(fd); }

// Readers and virus scanners that have one of the two open are in the way, and most are gone a moment later. (The flags say: replace what
// is there, and return when it is on the disk.)
static int ctm__rename(const char *from, const char *to) {
    ctm__wide_path a, b;
    int tries;
    if (!ctm__wide(a, from) || !ctm__wide(b, to)) return 0;
    for (tries = 1; tries <= 16; tries++) {
        if (MoveFileExW(a, b, 1 | 8)) return 1;
        ctm__windows_error();
        if (errno != EACCES && errno != EAGAIN) return 0;
        Sleep(10ul * (unsigned long)tries);                                                    // 1.4 seconds in all
    }
    errno = EACCES;
    return 0;
}

#elif defined(CTM__POSIX)

#if defined(__STRICT_ANSI__) && !defined(__cplusplus)     // -std=c99 hides these two, unless -fopenmp or a macro of yours shows them
#  if defined(__GNUC__) && !defined(__TINYC__)
#    pragma GCC diagnostic ignored "-Wredundant-decls"
#  endif
extern FILE   *(fdopen)(int fd, const char *mode);
extern ssize_t (readlink)(const char *path, char *out, size_t size);
#endif

CTM__DEF ctm_kind ctm_path_kind(const char *path) {
    struct stat s;
    if (stat(path, &s) != 0) return CTM_NOTHING;
    return S_ISREG(s.st_mode) ? CTM_FILE : S_ISDIR(s.st_mode) ? CTM_FOLDER : CTM_DEVICE;
}

CTM__DEF FILE *ctm_fopen(const char *path, const char *mode) { return fopen(path, mode); }

static int ctm__remove(const char *path) { return remove(path); }

// 1 if `path` is still the name of the open file: another holder may have renamed or removed it before this one got the lock.
static int ctm__still(int fd, const char *path) {
    struct stat a, b;
    return fstat(fd, &a) == 0 && stat(path, &b) == 0 && S_ISREG(a.st_mode) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

// 1: locked, 0: another has it, -1: no locks here.
static int ctm__lock(int fd) {
#ifdef LOCK_EX
    return flock(fd, LOCK_EX | LOCK_NB) == 0 ? 1 : errno == EWOULDBLOCK ? 0 : -1;
#else
    (void)fd;
    return -1;
#endif
}

CTM__DEF int ctm_hold(const char *path, int trust) {
    int tries, fd, old, lock = 1;
    char c;
    for (tries = 0; tries < 100 && lock != 0; tries++) {
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0666);
        old = fd < 0 && errno == EEXIST;
        if (old && readlink(path, &c, 1) < 0) fd = open(path, O_WRONLY | O_NONBLOCK);          // a link is not ours; a pipe would wait
        if (fd < 0 && old && errno == ENOENT) continue;                                        // it has just gone
        if (fd < 0) return -1;
        lock = ctm__lock(fd);
        if (lock < 0 && old && !trust) lock = 0;
        if (lock != 0 && ctm__still(fd, path)) {
            fcntl(fd, F_SETFD, FD_CLOEXEC);
            if (old) close(open(path, O_WRONLY | O_TRUNC));
            return fd;
        }
        close(fd);
    }
    errno = EAGAIN;
    return -1;
}

// Replaces the name of a link by what it leads to. Names such as /dev/fd/1, which the system gives to open streams, are no links.
static int ctm__follow(char *path) {
    char link[CTM_PATH];
    int turns;
    for (turns = 0; turns < 40; turns++) {
        const char *slash = strrchr(path, '/');
        const long n = strncmp(path, "/proc/", 6) == 0 || strncmp(path, "/dev/fd/", 8) == 0 ? -1 : (long)readlink(path, link, sizeof link);
        const size_t folder = n <= 0 || link[0] == '/' || !slash ? 0 : (size_t)(slash - path) + 1;
        if (n <= 0) return 1;
        if (folder + (size_t)n >= CTM_PATH) { errno = ENAMETOOLONG; return 0; }
        memcpy(path + folder, link, (size_t)n);
        path[folder + (size_t)n] = 0;
    }
    errno = ELOOP;
    return 0;
}

// Gives tmp the owner (if that is allowed) and the mode of the file that it will replace; 0 if that file may not be written.
static int ctm__as_before(const char *path, const char *tmp) {
#ifndef __wasi__
    struct stat s;
    if (stat(path, &s) != 0) return 1;
    if (!(s.st_mode & 0222) || access(path, W_OK) != 0) { errno = EACCES; return 0; }
    if (chown(tmp, s.st_uid, s.st_gid) == 0 || s.st_uid == getuid()) return chmod(tmp, s.st_mode & 0777) == 0 || errno == EPERM;
#else
    (void)path; (void)tmp;
#endif
    return 1;
}

static FILE *ctm__stream(int fd, const char *path) { (void)path; return fdopen(fd, "wb"); }
static int ctm__sync(int fd) { return fsync(fd) == 0 || errno == EINVAL || errno == ENOSYS; }     // the last two: there is no such thing
static void ctm__close(int fd) { close(fd); }

// The new name is on the disk when its folder is.
static int ctm__rename(const char *from, const char *to) {
    char folder[CTM_PATH];
    const char *slash = strrchr(to, '/');
    int fd;
    if (rename(from, to) != 0) return 0;
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - to) + 1 : 1, slash ? to : ".");
    fd = open(folder, O_RDONLY);
    if (fd >= 0) { fsync(fd); close(fd); }
    return 1;
}

#else // nothing but C

CTM__DEF ctm_kind ctm_path_kind(const char *path) {
    FILE *f = fopen(path, "rb");
    if (f) fclose(f);
    return f ? CTM_FILE : CTM_NOTHING;
}
CTM__DEF FILE *ctm_fopen(const char *path, const char *mode) { return fopen(path, mode); }
CTM__DEF int ctm_hold(const char *path, int trust) { (void)path; (void)trust; return 0; }
static int ctm__remove(const char *path) { return remove(path); }
static int ctm__follow(char *path) { (void)path; return 1; }
static int ctm__as_before(const char *path, const char *tmp) { (void)path; (void)tmp; return 1; }
static FILE *ctm__stream(int fd, const char *path) { (void)fd; return fopen(path, "wb"); }
static int ctm__sync(int fd) { (void)fd; return 1; }
static void ctm__close(int fd) { (void)fd; }
static int ctm__rename(const char *from, const char *to) { return rename(from, to) == 0; }

#endif

CTM__DEF void ctm_let_go(int held, const char *path) {
    if (held < 0) return;
    ctm__remove(path);                              // while nobody else can hold it
    ctm__close(held);
}

CTM__DEF FILE *ctm_output_open(ctm_output *out, const char *path) {
    const ctm_kind kind = ctm_path_kind(path);
    const size_t n = strlen(path);
    int k;
    out->file = NULL;
    out->tmp[0] = 0;
    out->held = -1;
    errno = n == 0 ? ENOENT : n >= CTM_PATH ? ENAMETOOLONG : kind == CTM_FOLDER ? EISDIR : 0;
    if (errno) return NULL;
    memcpy(out->path, path, n + 1);
    memcpy(out->target, path, n + 1);
    if (!ctm__follow(out->target)) return NULL;
    if (kind == CTM_DEVICE || strncmp(out->target, "/proc/", 6) == 0 || strncmp(out->target, "/dev/fd/", 8) == 0) {
        out->file = ctm_fopen(path, "wb");
        return out->file;
    }
    for (k = 1; k < 100 && out->held < 0; k++) {
        if (k == 1) snprintf(out->tmp, sizeof out->tmp, "%s.tmp", out->target);
        else        snprintf(out->tmp, sizeof out->tmp, "%s.%d.tmp", out->target, k);
        out->held = ctm_hold(out->tmp, 0);
    }
    if (out->held < 0) return NULL;
    if (ctm__as_before(out->target, out->tmp)) out->file = ctm__stream(out->held, out->tmp);
    k = errno;
    if (!out->file) ctm_let_go(out->held, out->tmp);
    errno = out->file ? 0 : k;                      // 0, so that a later value tells why a write failed
    return out->file;
}

CTM__DEF int ctm_output_close(ctm_output *out) {
    int ok = !ferror(out->file), reason;
    if (ok) errno = 0;
    ok = ok && fflush(out->file) == 0;
    if (out->tmp[0]) ok = ok && ctm__sync(out->held) && ctm__rename(out->tmp, out->target);
    reason = errno ? errno : EIO;
    if (!ok && out->tmp[0]) ctm__remove(out->tmp);
    if (fclose(out->file) != 0 && ok) { ok = 0; reason = errno; }
    out->file = NULL;
    if (!ok) errno = reason;
    return ok;
}

CTM__DEF void ctm_output_drop(ctm_output *out) {
    if (!out->file) return;
    if (out->tmp[0]) ctm__remove(out->tmp);
    fclose(out->file);
    out->file = NULL;
}

enum { CTM__HEADER_MAX = 100000000 };                  // the format's limit
#define CTM__FILE_MAX (sizeof(size_t) > 4 ? INT64_MAX / 4 : INT32_MAX - 64)      // what this machine could read, and therefore may write
#ifdef _WIN32                                          // long has 32 bits there
#  define CTM__FSEEK _fseeki64
#  define CTM__FTELL _ftelli64
#else
#  define CTM__FSEEK fseek
#  define CTM__FTELL ftell
#endif

// n records of `size` bytes with room for one more. Whenever n is a power of two they move to where there is room for twice as many.
static void *ctm__one_more(ctm_arena *a, void *records, int n, size_t size) {
    void *more;
    if (n & (n - 1)) return records;
    more = ctm_alloc_raw(a, (n ? 2 * (size_t)n : 1) * size);
    if (n) memcpy(more, records, (size_t)n * size);
    return more;
}

// ---- reading

// A cursor over the JSON header. Texts are decoded one behind the other to `out`, which has the header's own length, because no text is
// longer than what stands for it. A function ctm__json_.. answers 0 or NULL if something else stands there than it expects.
typedef struct ctm__json { ctm_arena *a; ctm_file *f; const char *fault, *start, *p, *end; char *out; size_t data; } ctm__json;

static int ctm__json_fail(const ctm__json *in, const char *expected) {
    return ctm__fail(in->a->ctx, "%s: %s: at byte %lu of its header, expected %s", in->f->path, in->fault,
                     (unsigned long)(in->p - in->start), expected);
}

static int ctm__json_char(ctm__json *in, char c) {
    while (in->p < in->end && (*in->p == ' ' || *in->p == '\n' || *in->p == '\t' || *in->p == '\r')) in->p++;
    if (in->p >= in->end || *in->p != c) return 0;
    in->p++;
    return 1;
}

// The next character of UTF-8 text, -1 if there is none. Its first byte tells how many follow, and each of those gives six bits. A
// character is not written longer than it need be, and the halves of pairs (D800 to DFFF) are no characters.
static int32_t ctm__utf8_read(const char **text, const char *end) {
    static const int32_t least[4] = {0, 0x80, 0x800, 0x10000};
    const unsigned char *p = (const unsigned char *)*text;
    int more = *p < 0x80 ? 0 : *p < 0xc0 ? 4 : *p < 0xe0 ? 1 : *p < 0xf0 ? 2 : *p < 0xf8 ? 3 : 4, i;
    int32_t c = more ? *p & (0x3f >> more) : *p;
    if (more == 4 || end - *text <= more) return -1;
    for (i = 1; i <= more; i++) {
        if (p[i] >> 6 != 2) return -1;
        c = c << 6 | (p[i] & 0x3f);
    }
    *text += 1 + more;
    return c < least[more] || c > 0x10ffff || c >> 11 == 0xd800 >> 11 ? -1 : c;
}

// The four digits of \uXXXX; -1 if something else stands there.
static int32_t ctm__json_hex(ctm__json *in) {
    int32_t c = 0;
    int i;
    for (i = 0; i < 4; i++, in->p++) {
        const char *digits = "0123456789abcdef0123456789ABCDEF", *at = in->p < in->end && *in->p ? strchr(digits, *in->p) : NULL;
        if (!at) return -1;
        c = c << 4 | ((int32_t)(at - digits) & 15);
    }
    return c;
}

// What stands behind a backslash; -1 if nothing can. Characters beyond FFFF are written as two of \uXXXX, ten bits in each. The character
// zero is refused, because no text of C can hold it.
static int32_t ctm__json_escape(ctm__json *in) {
    static const char escape[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const char *at = in->p < in->end && *in->p ? strchr(escape, *in->p) : NULL;
    int32_t c, low;
    if (at) { in->p++; return meant[at - escape]; }
    if (in->p >= in->end || *in->p++ != 'u') return -1;
    c = ctm__json_hex(in);
    if (c >> 10 == 0xd800 >> 10) {
        if (in->end - in->p < 2 || *in->p++ != '\\' || *in->p++ != 'u') return -1;
        low = ctm__json_hex(in);
        return low >> 10 == 0xdc00 >> 10 ? 0x10000 + ((c & 0x3ff) << 10) + (low & 0x3ff) : -1;
    }
    return c == 0 || c >> 10 == 0xdc00 >> 10 ? -1 : c;
}

static const char *ctm__json_string(ctm__json *in) {
    const char *text = in->out;
    if (!ctm__json_char(in, '"')) return NULL;
    while (in->p < in->end && *in->p != '"') {
        int escaped = *in->p == '\\', more;
        int32_t c;
        if (escaped) in->p++;
        c = escaped ? ctm__json_escape(in) : ctm__utf8_read(&in->p, in->end);
        if (c < (escaped ? 1 : 32)) return NULL;
        more = (c >= 0x80) + (c >= 0x800) + (c >= 0x10000);
        *in->out++ = (char)(more ? (0x780 >> more & 0xff) | c >> 6 * more : c);
        while (more--) *in->out++ = (char)(0x80 | (c >> 6 * more & 0x3f));
    }
    *in->out++ = 0;
    return ctm__json_char(in, '"') ? text : NULL;
}

// A list such as [2,3], of which the first `room` sizes are kept. Returns how many there are, -1 if this is no such list. Where
// `product` is not NULL it becomes that of all sizes, and must leave room for 16 bytes each.
static int ctm__json_sizes(ctm__json *in, size_t *size, int room, size_t *product) {
    int n, digits;
    size_t v;
    if (!ctm__json_char(in, '[')) return -1;
    for (n = 0; !ctm__json_char(in, ']'); n++) {        // (that also skips the spaces before a digit)
        if (n && (!ctm__json_char(in, ',') || ctm__json_char(in, ']'))) return -1;
        for (v = 0, digits = 0; in->p < in->end && *in->p >= '0' && *in->p <= '9'; in->p++, digits++) {
            if (v > (SIZE_MAX - 9) / 10) return -1;
            v = v * 10 + (size_t)(*in->p - '0');
        }
        if (!digits || (product && v && *product > SIZE_MAX / 16 / v)) return -1;
        if (product) *product *= v;
        if (n < room) size[n] = v;
    }
    return n;
}

// The types of the format with their bytes, in the order of the enum. The later ones are not read, but their size is checked.
static const struct { const char *name; size_t width; } ctm__dtypes[] = {{"F32", 4}, {"F64", 8}, {"I64", 8}, {"F16", 2}, {"BF16", 2},
    {"BOOL", 1}, {"U8", 1}, {"I8", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"U16", 2}, {"I16", 2}, {"U32", 4}, {"I32", 4}, {"U64", 8}};
enum { CTM__DTYPES = (int)(sizeof ctm__dtypes / sizeof ctm__dtypes[0]) };

// An object of any members: member() is called behind each name and its colon, and reads the value.
typedef int (*ctm__json_member)(ctm__json *in, const char *name, void *arg);
static int ctm__json_object(ctm__json *in, ctm__json_member member, void *arg) {
    int n;
    if (!ctm__json_char(in, '{')) return ctm__json_fail(in, "an object");
    for (n = 0; !ctm__json_char(in, '}'); n++) {
        const char *name;
        if (n && !ctm__json_char(in, ',')) return ctm__json_fail(in, "a comma or the end of the object");
        name = ctm__json_string(in);
        if (!name || !ctm__json_char(in, ':')) return ctm__json_fail(in, "a name in UTF-8 and a colon");
        if (!member(in, name, arg)) return 0;
    }
    return 1;
}

// A member of {"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}.
static int ctm__json_entry(ctm__json *in, const char *name, void *entry) {
    ctm_entry *e = (ctm_entry *)entry;
    size_t size[4], place[2];
    int d;
    if (strcmp(name, "dtype") == 0 && !e->type) {
        e->type = ctm__json_string(in);
        return e->type ? 1 : ctm__json_fail(in, "dtype to be a string");
    }
    if (strcmp(name, "shape") == 0 && e->ndim < 0) {
        e->ndim = ctm__json_sizes(in, size, 4, &e->len);
        for (d = 0; d < e->ndim && d < 4; d++) e->shape[d] = size[d] > 0x7fffffff ? -1 : (int)size[d];
        return e->ndim >= 0 ? 1 : ctm__json_fail(in, "shape to be a list of sizes that memory can hold");
    }
    if (strcmp(name, "data_offsets") == 0 && e->end == SIZE_MAX) {
        if (ctm__json_sizes(in, place, 2, NULL) != 2) return ctm__json_fail(in, "data_offsets to be two sizes");
        e->offset = place[0];
        e->end = place[1];
        return 1;
    }
    return ctm__json_fail(in, "dtype, shape and data_offsets, each once");
}

static int ctm__json_pair(ctm__json *in, const char *key, void *arg) {
    ctm_file *f = in->f;
    const char *value = ctm__json_string(in);
    (void)arg;
    if (!value) return ctm__fail(in->a->ctx, "%s: %s: \"%.80s\" in __metadata__ is no string in UTF-8", f->path, in->fault, key);
    f->meta = (ctm_pair *)ctm__one_more(in->a, f->meta, f->metas, sizeof *f->meta);
    f->meta[f->metas].key = key;
    f->meta[f->metas++].value = value;
    return 1;
}

// A member of the header: metadata, or a tensor. In a type that is not in the list, a number has a bit at least.
static int ctm__json_tensor(ctm__json *in, const char *name, void *metadata) {
    ctm_file *f = in->f;
    ctm_entry e;
    size_t bytes;
    int i;
    if (strcmp(name, "__metadata__") == 0)
        return (*(int *)metadata)++ ? ctm__json_fail(in, "__metadata__ to be one object") : ctm__json_object(in, ctm__json_pair, NULL);
    memset(&e, 0, sizeof e);
    e.name = name;
    e.ndim = -1;
    e.len = 1;
    e.end = SIZE_MAX;
    if (!ctm__json_object(in, ctm__json_entry, &e)) return 0;
    if (!e.type || e.ndim < 0 || e.end == SIZE_MAX) return ctm__json_fail(in, "dtype, shape and data_offsets, each once");
    for (i = 0; i < CTM__DTYPES && strcmp(e.type, ctm__dtypes[i].name) != 0; i++) { }
    e.dtype = ctm__imin(i, CTM_OTHER);
    bytes = e.end - e.offset;
    if (e.offset > e.end || e.end > in->data || (i < CTM__DTYPES ? bytes != e.len * ctm__dtypes[i].width : bytes < e.len / 8))
        return ctm__fail(f->ctx, "%s: %s: tensor \"%.80s\": its data_offsets do not fit its shape or the file", f->path, in->fault, name);
    f->entry = (ctm_entry *)ctm__one_more(in->a, f->entry, f->count, sizeof *f->entry);
    f->entry[f->count++] = e;
    return 1;
}

// Records begin with a pointer to their name: ctm_entry, ctm_pair.
static int ctm__by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

// Puts n records of `size` bytes into the order of their names. Returns a name that occurs twice, NULL if there is none.
static const char *ctm__sort_names(void *records, int n, size_t size) {
    const char *at = (const char *)records;
    int i;
    if (n) qsort(records, (size_t)n, size, ctm__by_name);
    for (i = 1; i < n; i++, at += size) if (ctm__by_name(at, at + size) == 0) return *(const char *const *)(const void *)at;
    return NULL;
}

static int ctm__by_place(const void *a, const void *b) {
    const ctm_entry *p = (const ctm_entry *)a, *q = (const ctm_entry *)b;
    if (p->offset != q->offset) return p->offset < q->offset ? -1 : 1;
    return p->end < q->end ? -1 : p->end > q->end;
}

// Names and keys occur once. The tensors fill the data part from its beginning to its end: they do not overlap and leave nothing between
// them.
static int ctm__file_is_sound(const ctm__json *in) {
    ctm_file *f = in->f;
    const char *twice;
    size_t at = 0;
    int i;
    if (f->count) qsort(f->entry, (size_t)f->count, sizeof *f->entry, ctm__by_place);
    for (i = 0; i < f->count; at = f->entry[i++].end)
        if (f->entry[i].offset != at)
            return ctm__fail(f->ctx, "%s: %s: tensor \"%.80s\" begins at byte %llu of the data, expected %llu (%s)", f->path, in->fault,
                             f->entry[i].name, (unsigned long long)f->entry[i].offset, (unsigned long long)at,
                             f->entry[i].offset < at ? "tensors overlap" : "there is a hole");
    if (at != in->data) return ctm__fail(f->ctx, "%s: %s: its tensors end at byte %llu of %llu of the data", f->path, in->fault,
                                        (unsigned long long)at, (unsigned long long)in->data);
    twice = ctm__sort_names(f->meta, f->metas, sizeof *f->meta);
    if (!twice) twice = ctm__sort_names(f->entry, f->count, sizeof *f->entry);
    return twice ? ctm__fail(f->ctx, "%s: %s: it has \"%.80s\" twice", f->path, in->fault, twice) : 1;
}

// A file out of its bytes, which must stay; of the `size` bytes only the header is looked at. path and fault begin a message. NULL with
// ctm_error.
static ctm_file *ctm__file_parse(ctm_arena *a, const char *path, const char *fault, const unsigned char *bytes, size_t size) {
    ctm_file *f = (ctm_file *)ctm_alloc(a, sizeof *f);
    uint64_t header = 0;
    int i, metadata = 0, ok;
    ctm__json in;
    f->ctx = a->ctx;
    snprintf(f->path, sizeof f->path, "%s", path);
    for (i = 7; size >= 8 && i >= 0; i--) header = header << 8 | bytes[i];
    if (size < 10 || header > size - 8 || bytes[8] != '{') {
        ctm__fail(a->ctx, "%s: not a safetensors file, or cut off in its header (%llu bytes)", path, (unsigned long long)size);
        return NULL;
    }
    if (header > CTM__HEADER_MAX) {
        ctm__fail(a->ctx, "%s: its header of %.0f bytes is longer than the format allows, %d", path, (double)header, (int)CTM__HEADER_MAX);
        return NULL;
    }
    in.a = a; in.f = f; in.fault = fault;
    in.start = in.p = (const char *)bytes + 8;
    in.end = in.p + header;
    in.out = (char *)ctm_alloc_raw(a, (size_t)header);
    in.data = size - 8 - (size_t)header;
    f->data = bytes + 8 + header;
    ok = ctm__json_object(&in, ctm__json_tensor, &metadata);
    if (ok && (ctm__json_char(&in, 0) || in.p != in.end)) ok = ctm__json_fail(&in, "nothing after the object");
    return ok && ctm__file_is_sound(&in) ? f : NULL;
}

// The file's bytes in the arena; NULL with ctm_error. They are read in pieces, because not every C library reads more than 2 GiB at once.
static unsigned char *ctm__slurp(ctm_arena *a, const char *path, size_t *size) {
    const ctm_kind kind = ctm_path_kind(path);
    const int regular = kind != CTM_DEVICE && kind != CTM_FOLDER;              // a pipe would wait
    FILE *f = regular ? ctm_fopen(path, "rb") : NULL;
    unsigned char *bytes = NULL;
    size_t at = 0, piece = 1;
    int64_t n = -1;
    if (regular && !f) { ctm__fail(a->ctx, "%s: %s", path, strerror(errno)); return NULL; }
    if (f && CTM__FSEEK(f, 0, SEEK_END) == 0) n = CTM__FTELL(f);
    if (n < 0 || CTM__FSEEK(f, 0, SEEK_SET) != 0) ctm__fail(a->ctx, "%s: is not a regular file", path);
    else if (n > CTM__FILE_MAX || (bytes = (unsigned char *)ctm__alloc_try(a, (size_t)n + 1)) == NULL)
        ctm__fail(a->ctx, "%s: has %.0f bytes, for which there is not enough memory", path, (double)n);
    for (; bytes && at < (size_t)n && piece; at += piece) {
        piece = (size_t)n - at < (size_t)1 << 30 ? (size_t)n - at : (size_t)1 << 30;
        piece = fread(bytes + at, 1, piece, f);
    }
    if (f) fclose(f);
    *size = at;
    if (!bytes || at == (size_t)n) return bytes;
    ctm__fail(a->ctx, "%s: could not be read to its end", path);
    return NULL;
}

CTM__DEF ctm_file *ctm_file_read(ctm_arena *a, const char *path) {
    size_t size = 0;
    unsigned char *bytes = ctm__slurp(a, path, &size);
    return bytes ? ctm__file_parse(a, path, "damaged safetensors file", bytes, size) : NULL;
}

CTM__DEF const ctm_entry *ctm_file_find(const ctm_file *f, const char *name) {
    return f->count ? (const ctm_entry *)bsearch(&name, f->entry, (size_t)f->count, sizeof *f->entry, ctm__by_name) : NULL;
}
CTM__DEF const char *ctm_file_meta(const ctm_file *f, const char *key) {
    const ctm_pair *m = f->metas ? (const ctm_pair *)bsearch(&key, f->meta, (size_t)f->metas, sizeof *f->meta, ctm__by_name) : NULL;
    return m ? m->value : NULL;
}

static int ctm__can_read(const ctm_file *f, const ctm_entry *e) {
    return e->dtype != CTM_OTHER ? 1 : ctm__fail(f->ctx, "%s: tensor \"%.80s\" has type %.20s; F32, F64, F16, BF16 and I64 can be read",
                                                 f->path, e->name, e->type);
}

// The bits of number i of a tensor, little-endian.
static uint64_t ctm__stored_bits(const ctm_file *f, const ctm_entry *e, size_t i) {
    size_t width = ctm__dtypes[e->dtype].width, b;
    const unsigned char *p = f->data + e->offset + i * width;
    uint64_t bits = 0;
    for (b = width; b-- > 0; ) bits = bits << 8 | p[b];
    return bits;
}

// The number whose bits are a sign, E of exponent and F of fraction: by whole numbers alone, as the machine may take tiny floats for zero.
static double ctm__short_float(uint64_t bits, int E, int F) {
    const int top = (1 << E) - 1, exponent = (int)(bits >> F) & top;
    const uint64_t fraction = bits & (((uint64_t)1 << F) - 1);
    double v = ldexp((double)(exponent ? fraction | (uint64_t)1 << F : fraction), (exponent ? exponent : 1) - top / 2 - F);
    if (exponent == top) v = fraction ? HUGE_VAL - HUGE_VAL : HUGE_VAL;
    return bits >> (E + F) ? -v : v;
}

static double ctm__stored_number(const ctm_file *f, const ctm_entry *e, size_t i) {
    uint64_t bits = ctm__stored_bits(f, e, i);
    if (e->dtype == CTM_F64) { double v; memcpy(&v, &bits, 8); return v; }
    if (e->dtype == CTM_I64) { int64_t v; memcpy(&v, &bits, 8); return (double)v; }
    return ctm__short_float(bits, e->dtype == CTM_F16 ? 5 : 8, e->dtype == CTM_F16 ? 10 : e->dtype == CTM_BF16 ? 7 : 23);
}

CTM__DEF int ctm_file_get(const ctm_file *f, const ctm_entry *e, double *out) {
    size_t i;
    if (!ctm__can_read(f, e)) return 0;
    for (i = 0; i < e->len; i++) out[i] = ctm__stored_number(f, e, i);
    return 1;
}

// ---- writing

struct ctm__item { const char *name; const ctm_real *data; int ndim, shape[4], transposed; size_t len; };    // shape: as in the file

CTM__DEF void ctm_writer_init(ctm_writer *w, ctm_arena *a) {
    memset(w, 0, sizeof *w);
    w->ctx = a->ctx;
    w->arena = a;
}

static const char *ctm__keep(ctm_arena *a, const char *text) {
    size_t n = strlen(text) + 1;
    return (const char *)memcpy(ctm_alloc_raw(a, n), text, n);
}

CTM__DEF void ctm_writer_meta(ctm_writer *w, const char *key, const char *value) {
    w->meta = (ctm_pair *)ctm__one_more(w->arena, w->meta, w->metas, sizeof *w->meta);
    w->meta[w->metas].key = ctm__keep(w->arena, key);
    w->meta[w->metas++].value = ctm__keep(w->arena, value);
}

CTM__DEF void ctm_writer_add(ctm_writer *w, const char *name, const ctm_real *data, int ndim, const int *shape, int transposed) {
    struct ctm__item *e;
    int i;
    CTM__REQUIRE(ndim >= 0 && ndim <= 4 && (!transposed || ndim == 2 || ndim == 4), "ctm_writer_add: \"%s\" has %d dimensions", name, ndim);
    w->item = (struct ctm__item *)ctm__one_more(w->arena, w->item, w->count, sizeof *w->item);
    e = &w->item[w->count++];
    e->name = ctm__keep(w->arena, name);
    e->data = data;
    e->ndim = ndim;
    e->transposed = transposed;
    e->len = 1;
    for (i = 0; i < ndim; i++) {
        e->shape[i] = !transposed ? shape[i] : ndim == 2 ? shape[1 - i] : shape[i < 2 ? 3 - i : i - 2];
        e->len *= (size_t)shape[i];
    }
}

// `text` as a JSON string at `out`, where there is room for six characters in place of each, and three more. Returns where it ends.
static char *ctm__json_quote(char *out, const char *text) {
    *out++ = '"';
    for (; *text; text++) {
        if ((unsigned char)*text < 32) { out += sprintf(out, "\\u%04x", *text); continue; }
        if (*text == '"' || *text == '\\') *out++ = '\\';
        *out++ = *text;
    }
    *out++ = '"';
    return out;
}

// v as F16, the nearest with 10 bits of fraction and an exponent from -14 on; 0x7C00 or more where it is too large.
static uint64_t ctm__half_bits(double v) {
    int e;
    double fraction;
    frexp(v, &e);
    e = v == 0 || e - 1 < -14 ? -14 : e - 1;
    if (e > 15) return 0x7C00;
    fraction = rint(ldexp(fabs(v), 10 - e));           // with its leading 1, which counts the exponent up by one; a carry does, too
    return ((uint64_t)(e + 14) << 10) + (uint64_t)fraction + (v < 0 ? 0x8000 : 0);
}

static void ctm__put_real(unsigned char *p, ctm_real v, size_t width) {
    uint64_t bits = 0;
    size_t b;
    if (width == 2) bits = ctm__half_bits((double)v);
    else if (width == 4) { float x = (float)v; uint32_t low; memcpy(&low, &x, 4); bits = low; }
    else { double x = (double)v; memcpy(&bits, &x, 8); }
    for (b = 0; b < width; b++) p[b] = (unsigned char)(bits >> (8 * b));
}

static size_t ctm__writer_width(const ctm_writer *w) { return w->half ? 2 : sizeof(ctm_real); }

// 1 if all numbers fit in the file's type.
static int ctm__writer_holds(const ctm_writer *w, const char *path) {
    size_t i;
    int t;
    for (t = 0; w->half && t < w->count; t++)
        for (i = 0; i < w->item[t].len; i++)
            if (!ctm_is_finite((double)w->item[t].data[i]) || (ctm__half_bits((double)w->item[t].data[i]) & 0x7FFF) >= 0x7C00)
                return ctm__fail(w->ctx, "%s: not written: tensor \"%.80s\" has the number %g, but F16 ends at 65504", path,
                                 w->item[t].name, (double)w->item[t].data[i]);
    return 1;
}

// The numbers in the file's order, [out,in,window], where [window,in,out] is in memory.
static void ctm__write_item(FILE *f, const struct ctm__item *e, size_t width) {
    unsigned char piece[512 * sizeof(ctm_real)];
    size_t O = e->transposed ? (size_t)e->shape[0] : 1, I = e->transposed ? (size_t)e->shape[1] : 1, K = e->len ? e->len / (O * I) : 0,
        n = 0, o, i, k;
    for (o = 0; o < O; o++) for (i = 0; i < I; i++) for (k = 0; k < K; k++) {
        ctm__put_real(piece + n, e->data[(k * I + i) * O + o], width);
        n += width;
        if (n == sizeof piece) { fwrite(piece, 1, n, f); n = 0; }
    }
    fwrite(piece, 1, n, f);
}

// The header with its length in front, n bytes in all; *total becomes how many bytes of numbers follow.
static unsigned char *ctm__writer_header(ctm_writer *w, size_t *n, uint64_t *total) {
    size_t room = 64;
    unsigned char *bytes;
    char *text, *at;
    int t, d;
    for (t = 0; t < w->metas; t++) room += 6 * (strlen(w->meta[t].key) + strlen(w->meta[t].value)) + 8;
    for (t = 0; t < w->count; t++) room += 6 * strlen(w->item[t].name) + 160;
    bytes = (unsigned char *)ctm_alloc_raw(w->arena, 8 + room);
    text = (char *)bytes + 8;
    at = text + sprintf(text, "{\"__metadata__\":{");
    for (t = 0; t < w->metas; t++) {
        if (t) *at++ = ',';
        at = ctm__json_quote(at, w->meta[t].key);
        *at++ = ':';
        at = ctm__json_quote(at, w->meta[t].value);
    }
    *at++ = '}';
    for (t = 0, *total = 0; t < w->count; t++) {
        const struct ctm__item *e = &w->item[t];
        *at++ = ',';
        at = ctm__json_quote(at, e->name);
        at += sprintf(at, ":{\"dtype\":\"%s\",\"shape\":[", w->half ? "F16" : sizeof(ctm_real) == 4 ? "F32" : "F64");
        for (d = 0; d < e->ndim; d++) at += sprintf(at, d ? ",%d" : "%d", e->shape[d]);
        at += sprintf(at, "],\"data_offsets\":[%llu,", (unsigned long long)*total);
        *total += e->len * ctm__writer_width(w);
        at += sprintf(at, "%llu]}", (unsigned long long)*total);
    }
    *at++ = '}';
    while ((at - text) % 8) *at++ = ' ';
    *n = (size_t)(at - text);
    for (d = 0; d < 8; d++) bytes[d] = (unsigned char)((uint64_t)*n >> 8 * d);
    *n += 8;
    return bytes;
}

static int ctm__write_file(ctm_writer *w, const char *path, const unsigned char *header, size_t n) {
    ctm_output out;
    int t;
    if (ctm_path_kind(path) == CTM_DEVICE) return ctm__fail(w->ctx, "%s: could not be written: it is no regular file", path);
    if (ctm_output_open(&out, path)) {
        fwrite(header, 1, n, out.file);                // a failure is remembered by the file until it is closed
        for (t = 0; t < w->count; t++) ctm__write_item(out.file, &w->item[t], ctm__writer_width(w));
        if (ctm_output_close(&out)) return 1;
    }
    if (errno == ENAMETOOLONG) return ctm__fail(w->ctx, "%.80s...: the path is too long", path);
    return ctm__fail(w->ctx, "%s: could not be written: %s", path, strerror(errno));
}

CTM__DEF int ctm_writer_save(ctm_writer *w, const char *path) {
    ctm_mark m = ctm_arena_mark(w->arena);
    uint64_t total;
    size_t n;
    unsigned char *header = ctm__writer_header(w, &n, &total);
    int ok;
    if (total > (uint64_t)CTM__FILE_MAX - n)
        ok = ctm__fail(w->ctx, "%s: not written: %.0f bytes are more than could be read on this machine", path, (double)total);
    else                                               // what nobody could read is not written
        ok = ctm__file_parse(w->arena, path, "not written", header, n + (size_t)total) && ctm__writer_holds(w, path) &&
             ctm__write_file(w, path, header, n);
    ctm_arena_release(w->arena, m);
    return ok;
}

// ---- networks

static void ctm__write_net(ctm_writer *w, const ctm_net *net, const char *prefix, const ctm_real *values) {
    int p;
    for (p = 0; p < net->count; p++) {
        const ctm_tensor *t = net->param[p];
        char name[128];
        snprintf(name, sizeof name, "%s%s", prefix, t->name);
        ctm_writer_add(w, name, values + (t->data - net->theta), t->ndim, t->shape, t->ndim > 1);
    }
}

static void ctm__write_config(ctm_writer *w, const ctm_net *net, const ctm_config *cfg, const char *what, const char *const *pairs) {
    char text[40];
    ctm_writer_meta(w, "ctm.format", what);
    ctm_writer_meta(w, "ctm.version", CTM_VERSION);
    ctm_writer_meta(w, "ctm.network", net->kind);
    snprintf(text, sizeof text, "%d", net->dim);
    ctm_writer_meta(w, "ctm.dim", text);
    ctm_writer_meta(w, "ctm.with_s", net->with_s ? "1" : "0");
    ctm__write_settings(w, cfg);
    for (; pairs && pairs[0]; pairs += 2) ctm_writer_meta(w, pairs[0], pairs[1]);
}

CTM__DEF int ctm_save_with(ctm_arena *scratch, const ctm_net *net, const ctm_config *cfg, const char *path, const char *const *pairs) {
    ctm_mark m = ctm_arena_mark(scratch);
    ctm_writer w;
    int ok;
    ctm_writer_init(&w, scratch);
    ctm__write_config(&w, net, cfg, "model", pairs);
    ctm__write_net(&w, net, "", net->theta);
    ok = ctm_writer_save(&w, path);
    ctm_arena_release(scratch, m);
    return ok;
}

CTM__DEF int ctm_save(ctm_arena *scratch, const ctm_net *net, const ctm_config *cfg, const char *path) {
    return ctm_save_with(scratch, net, cfg, path, NULL);
}

// The file's tensor for parameter t, which has its shape and a type that can be read; NULL with ctm_error.
static const ctm_entry *ctm__entry_of(const ctm_file *f, const char *name, const ctm_tensor *t) {
    const ctm_entry *e = ctm_file_find(f, name);
    ctm_tensor needs = *t, has = *t;
    char needs_text[48], has_text[48];
    if (!e) { ctm__fail(f->ctx, "%s: has no tensor \"%s\"", f->path, name); return NULL; }
    needs.shape[0] = t->shape[t->ndim - 1];            // a file has [out,in,window]
    if (t->ndim > 1) needs.shape[1] = t->shape[t->ndim - 2];
    if (t->ndim > 2) needs.shape[2] = needs.shape[3] = t->shape[0];
    if (e->ndim == t->ndim && memcmp(e->shape, needs.shape, (size_t)t->ndim * sizeof(int)) == 0) return ctm__can_read(f, e) ? e : NULL;
    has.ndim = ctm__imin(e->ndim, 4);
    memcpy(has.shape, e->shape, sizeof has.shape);
    ctm_shape_text(&has, has_text, sizeof has_text);
    ctm_shape_text(&needs, needs_text, sizeof needs_text);
    ctm__fail(f->ctx, "%s: tensor \"%s\" is %s%s, but this network needs %s", f->path, name, has_text, e->ndim > 4 ? " and more" : "",
              needs_text);
    return NULL;
}

// Reads parameter t, turning [out,in,window] into [window,in,out]. Every number must be finite in the type of weights, and not negative
// if it is a mean of squares. With `values` NULL they are looked at and not kept.
static int ctm__read_param(const ctm_file *f, const char *name, const ctm_tensor *t, int squares, ctm_real *values) {
    const ctm_entry *e = ctm__entry_of(f, name, t);
    size_t I = t->ndim > 1 ? (size_t)t->shape[t->ndim - 2] : 1, O = (size_t)t->shape[t->ndim - 1], K = t->len / (O * I), o, i, k, n = 0;
    if (!e) return 0;
    for (o = 0; o < O; o++) for (i = 0; i < I; i++) for (k = 0; k < K; k++, n++) {
        ctm_real v = (ctm_real)ctm__stored_number(f, e, n);
        if (sizeof v == 4 && (e->dtype == CTM_F32 || e->dtype == CTM_BF16)) {  // bit for bit, tiny numbers too
            uint32_t bits = (uint32_t)ctm__stored_bits(f, e, n) << (e->dtype == CTM_F32 ? 0 : 16);
            memcpy(&v, &bits, 4);
        }
        if (!ctm_is_finite((double)v)) return ctm__fail(f->ctx, "%s: tensor \"%s\" holds a number that is not finite", f->path, name);
        if (squares && copysign(1, (double)v) < 0)
            return ctm__fail(f->ctx, "%s: tensor \"%s\" holds %g, but means of squares are not negative", f->path, name, (double)v);
        if (values) values[(k * I + i) * O + o] = v;
    }
    return 1;
}

// The values of a network's parameters, or of what goes with each of them, such as the optimiser's averages. With `values` NULL they
// are looked at only.
static int ctm__read_values(const ctm_net *net, const ctm_file *f, const char *prefix, int squares, ctm_real *values) {
    int p;
    for (p = 0; p < net->count; p++) {
        const ctm_tensor *t = net->param[p];
        char name[128];
        snprintf(name, sizeof name, "%s%s", prefix, t->name);
        if (!ctm__read_param(f, name, t, squares, values ? values + (t->data - net->theta) : NULL)) return 0;
    }
    return 1;
}

// 1 if a tensor of the file has the prefix and is meant for a network. The authors' files carry two things that no forward pass reads:
// the constant filter of their resampling, and an input for augmentations that is fed with zeros when sampling.
static int ctm__is_meant(const char *name, const char *prefix) {
    size_t n = strlen(name), k = strlen("resample_filter"), skip = strlen(prefix);
    return strncmp(name, prefix, skip) == 0 && strncmp(name + skip, "map_augment.", 12) != 0 &&
           (n < k || strcmp(name + n - k, "resample_filter") != 0);
}

// Every parameter must be in the file, and every tensor that is meant for a network must have a place in this one.
static int ctm__names_fit(const ctm_net *net, const ctm_file *f, const char *prefix) {
    char name[128], missing[128] = "", text[320] = "";
    const char *extra = NULL;
    int lacks = 0, more = -net->count, i, p;           // more: how many tensors there are beyond those that are wanted
    for (p = 0; p < net->count; p++) {
        snprintf(name, sizeof name, "%s%s", prefix, net->param[p]->name);
        if (ctm_file_find(f, name)) continue;
        if (!lacks++) memcpy(missing, name, sizeof name);
        more++;
    }
    for (i = 0; i < f->count; i++) more += ctm__is_meant(f->entry[i].name, prefix);
    for (i = 0; i < f->count && more > 0 && !extra; i++) {
        if (!ctm__is_meant(f->entry[i].name, prefix)) continue;
        for (p = 0; p < net->count && strcmp(net->param[p]->name, f->entry[i].name + strlen(prefix)) != 0; p++) { }
        if (p == net->count) extra = f->entry[i].name;
    }
    if (!lacks && !extra) return 1;
    if (lacks) snprintf(text, sizeof text, "has no tensor \"%s\" (%d missing)%s", missing, lacks, extra ? "; " : "");
    if (extra) snprintf(text + strlen(text), 140, "tensor \"%.80s\" has no place in this network (%d in all)", extra, more);
    return ctm__fail(f->ctx, "%s: %s", f->path, text);
}

// All is looked at before anything is stored: a network is read whole or left as it was.
static int ctm__net_fits(const ctm_net *net, const ctm_file *f, const char *prefix) {
    return ctm__names_fit(net, f, prefix) && ctm__read_values(net, f, prefix, 0, NULL);
}

CTM__DEF int ctm_net_read(ctm_net *net, const ctm_file *f, const char *prefix) {
    return ctm__net_fits(net, f, prefix) && ctm__read_values(net, f, prefix, 0, net->theta);
}

// Metadata that must be one of two words; NULL with ctm_error.
static const char *ctm__meta_word(const ctm_file *f, const char *key, const char *word, const char *other) {
    const char *text = ctm_file_meta(f, key);
    if (text && (strcmp(text, word) == 0 || strcmp(text, other) == 0)) return text;
    ctm__fail(f->ctx, "%s: \"%s\" in its metadata is \"%.40s\", expected %s or %s", f->path, key, text ? text : "", word, other);
    return NULL;
}

#ifdef CTM_NO_IMAGES
static ctm_net *ctm__unet_of_file(ctm_arena *a, const ctm_file *f, const ctm_config *cfg, long long d, int with_s) {
    (void)a; (void)cfg; (void)d; (void)with_s;
    ctm__fail(f->ctx, "%s: holds a network for images, but this program was compiled with CTM_NO_IMAGES", f->path);
    return NULL;
}
#else
static ctm_net *ctm__unet_of_file(ctm_arena *a, const ctm_file *f, const ctm_config *cfg, long long d, int with_s) {
    long long images;
    if (!ctm_unet_fits(f->ctx, cfg)) {
        char why[512];
        memcpy(why, f->ctx->error, sizeof why);
        ctm__fail(f->ctx, "%s: %s", f->path, why);
        return NULL;
    }
    images = (long long)cfg->size * cfg->size * cfg->channels;
    if (d == images) return ctm__unet_bare(a, cfg, with_s);
    ctm__fail(f->ctx, "%s: \"ctm.dim\" in its metadata is %lld, but images of %d x %d pixels with %d channels have %lld numbers", f->path,
              d, cfg->size, cfg->size, cfg->channels, images);
    return NULL;
}
#endif

// The network that a file's metadata describe, without memory for its weights yet; NULL with ctm_error.
static ctm_net *ctm__net_of_file(ctm_arena *a, const ctm_file *f, ctm_config *cfg) {
    const char *format = ctm_file_meta(f, "ctm.format"), *dim = ctm_file_meta(f, "ctm.dim"), *kind, *with_s;
    long long d;
    if (!format) { ctm__fail(f->ctx, "%s: has none of ctm.h's metadata; a model was expected", f->path); return NULL; }
    if (strcmp(format, "model") != 0) {
        ctm__fail(f->ctx, "%s: holds a %.40s, but a model was expected", f->path, format);
        return NULL;
    }
    kind = ctm__meta_word(f, "ctm.network", "mlp", "unet");
    if (!kind) return NULL;
    with_s = ctm__meta_word(f, "ctm.with_s", "0", "1");
    if (!with_s) return NULL;
    if (!dim || !ctm__whole_read(dim, 1, 0x4000000, &d)) {
        ctm__fail(f->ctx, "%s: \"ctm.dim\" in its metadata is \"%.40s\", expected the dimension of the data", f->path, dim ? dim : "");
        return NULL;
    }
    if (!ctm_config_read(f, cfg)) return NULL;
    if (strcmp(kind, "mlp") == 0) return ctm__mlp_bare(a, cfg, (int)d, with_s[0] == '1');
    return ctm__unet_of_file(a, f, cfg, d, with_s[0] == '1');
}

// Memory and weights for a network that has none, once the file is known to fit: a file may claim a size of any kind.
static int ctm__fill_net(ctm_arena *a, ctm_net *net, const ctm_file *f) {
    if (!ctm__net_fits(net, f, "")) return 0;
    ctm_net_ready(a, net);
    return ctm__read_values(net, f, "", 0, net->theta);
}

CTM__DEF ctm_net *ctm_load_file(ctm_arena *a, const ctm_file *f, ctm_config *cfg) {
    ctm_mark m = ctm_arena_mark(a);
    ctm_config own;
    ctm_net *net = ctm__net_of_file(a, f, cfg ? cfg : &own);
    if (net && ctm__fill_net(a, net, f)) return net;
    ctm_arena_release(a, m);
    return NULL;
}

CTM__DEF ctm_net *ctm_load(ctm_arena *a, const char *path, ctm_config *cfg) {
    ctm_arena *scratch = ctm__guest(a, "file");        // it is freed below: nothing of the file stays
    ctm_file *f = ctm_file_read(scratch, path);
    ctm_net *net = f ? ctm_load_file(a, f, cfg) : NULL;
    ctm__guest_free(a, scratch);
    return net;
}

// ---- checkpoints
// Which build wrote a checkpoint decides whether a run goes on bit for bit. So it keeps a short text that tells builds apart.

#ifdef __clang__
#  define CTM__COMPILER __VERSION__
#elif defined(__GNUC__) && !defined(__TINYC__)
#  define CTM__COMPILER "gcc " __VERSION__
#else
#  define CTM__COMPILER "another compiler"
#endif

static uint64_t ctm__mix(uint64_t h, double v) {
    uint64_t bits;
    memcpy(&bits, &v, 8);
    h = (h ^ bits) * 1099511628211ull;
    return h ^ h >> 32;
}

// A number made of the last digits of a few thousand results, of the C library's functions, of plain arithmetic and of the kernels. It
// is another one where any of these rounds otherwise, whatever the reason.
static uint32_t ctm__arithmetic(const ctm_ctx *ctx) {
    enum { N = 16 };
    ctm_rng rng = ctm_stream(0, "arithmetic");
    uint64_t h = 1469598103934665603ull, i;
    ctm_real x[N * N], y[2][N * N];
    int k;
    for (i = 0; i < N * N; i++) {
        double u = ctm_uniform(&rng, 0, i), e = exp(-u);
        x[i] = (ctm_real)u;
        h = ctm__mix(ctm__mix(ctm__mix(ctm__mix(h, e), log(u)), pow(u, 1.0 / 7)), u * e + u);
    }
    for (k = 0; k < 4; k++) {
        if (k == 0) ctx->kernels->gemm(N, N, N, x, N, 1, x, N, y[0], N, NULL, 0);
        if (k == 1) ctx->kernels->exp_rows(N * N, x, y[0]);
        if (k == 2) ctx->kernels->log_rows(N * N, x, y[0]);
        if (k == 3) ctx->kernels->sincos_rows(N * N, x, y[0], y[1]);
        for (i = 0; i < N * N; i++) h = ctm__mix(h, (double)y[0][i]);
    }
    h = ctm__mix(h, ctx->kernels->sumsq(N * N, x));
    return (uint32_t)(h >> 32 ^ h);
}

static void ctm__build_text(const ctm_ctx *ctx, char text[100]) {
    snprintf(text, 100, "ctm.h %s, %s, winograd %d, %s, arithmetic %08lx", CTM_VERSION, ctm_isa_name(ctx->isa), ctx->winograd,
             sizeof(ctm_real) == 4 ? "float" : "double", (unsigned long)ctm__arithmetic(ctx));
}

static void ctm__note_build(ctm_trainer *tr, const ctm_file *f) {
    const char *build = ctm_file_meta(f, "ctm.build"), *compiler = ctm_file_meta(f, "ctm.compiler");
    char own[100];
    ctm__build_text(tr->ctx, own);
    tr->note[0] = 0;
    if (build && strcmp(build, own) == 0) return;
    snprintf(tr->note, sizeof tr->note, "%.90s was written by %.90s (%.20s), this is %s (%s): the bits may differ from those of a run "
             "in one piece", f->path, build ? build : "a build that it does not name", compiler ? compiler : "?", own, CTM__COMPILER);
}

// The arrays of a trainer that a checkpoint holds, and the networks they belong to. Writing and reading walk this list.
enum { CTM__ARRAYS = 10 };
typedef struct ctm__array { const ctm_net *net; const char *prefix; ctm_real *values; int squares; } ctm__array;

static int ctm__trainer_arrays(const ctm_trainer *tr, ctm__array array[CTM__ARRAYS]) {
    static const char *const prefix[CTM__ARRAYS] = {"theta.", "opt.m.", "opt.v.", "ema0.", "ema1.", "ema2.", "ema3.",
        "disc.", "disc.m.", "disc.v."};
    ctm_real *values[CTM__ARRAYS];
    int i, n = 0;
    values[0] = tr->theta->theta; values[1] = tr->opt.m; values[2] = tr->opt.v;
    for (i = 0; i < 4; i++) values[3 + i] = i < tr->emas ? tr->ema[i]->theta : NULL;
    values[7] = tr->disc ? tr->disc->theta : NULL;
    values[8] = tr->disc_opt.m; values[9] = tr->disc_opt.v;      // NULL without a discriminator
    for (i = 0; i < CTM__ARRAYS; i++) {
        if (!values[i]) continue;
        array[n].net = i < 7 ? tr->theta : tr->disc;
        array[n].prefix = prefix[i];
        array[n].squares = i == 2 || i == 9;
        array[n++].values = values[i];
    }
    return n;
}

// Its numbers, by the names they have in the metadata. The first three are counts, the third only with a discriminator. The others tell
// of the last step, as the next one may be the discriminator's and leave the student's figures as they are.
static const ctm__field ctm__numbers[] = {
    {"ctm.step", 'l', offsetof(ctm_trainer, step)}, {"ctm.opt.k", 'l', offsetof(ctm_trainer, opt.k)},
    {"ctm.disc.k", 'l', offsetof(ctm_trainer, disc_opt.k)}, {"ctm.last.L_ctm", 'd', offsetof(ctm_trainer, L_ctm)},
    {"ctm.last.L_dsm", 'd', offsetof(ctm_trainer, L_dsm)}, {"ctm.last.lambda_dsm", 'd', offsetof(ctm_trainer, lambda_dsm)},
    {"ctm.last.grad_norm", 'd', offsetof(ctm_trainer, grad_norm)}, {"ctm.last.lr", 'd', offsetof(ctm_trainer, lr)},
    {"ctm.last.L_gan", 'd', offsetof(ctm_trainer, L_gan)}, {"ctm.last.L_disc", 'd', offsetof(ctm_trainer, L_disc)},
    {"ctm.last.lambda_gan", 'd', offsetof(ctm_trainer, lambda_gan)}, {"ctm.last.disc_real", 'd', offsetof(ctm_trainer, disc_real)},
    {"ctm.last.disc_fake", 'd', offsetof(ctm_trainer, disc_fake)}};
enum { CTM__NUMBERS = (int)(sizeof ctm__numbers / sizeof ctm__numbers[0]), CTM__COUNTS = 3, CTM__DISC_COUNT = 2 };

CTM__DEF int ctm_checkpoint_save(ctm_arena *scratch, const ctm_trainer *tr, const char *path, const char *const *pairs) {
    ctm_mark m = ctm_arena_mark(scratch);
    ctm__array array[CTM__ARRAYS];
    ctm_writer w;
    char text[40], build[100];
    int i, n = ctm__trainer_arrays(tr, array), ok;
    double v;
    ctm_writer_init(&w, scratch);
    ctm__write_config(&w, tr->theta, &tr->cfg, "checkpoint", pairs);
    ctm__build_text(tr->ctx, build);
    ctm_writer_meta(&w, "ctm.build", build);
    ctm_writer_meta(&w, "ctm.compiler", CTM__COMPILER);
    for (i = 0; i < CTM__NUMBERS; i++) {
        ctm__field_text(tr, &ctm__numbers[i], 17, text);
        if (i == CTM__DISC_COUNT && !tr->disc) continue;
        if (i >= CTM__COUNTS && !ctm__real_read(text, &v)) continue;     // no number, after a step that failed
        ctm_writer_meta(&w, ctm__numbers[i].name, text);
    }
    for (i = 0; i < n; i++) ctm__write_net(&w, array[i].net, array[i].prefix, array[i].values);
    ok = ctm_writer_save(&w, path);
    ctm_arena_release(scratch, m);
    return ok;
}

static int ctm__read_numbers(ctm_trainer *tr, const ctm_file *f) {
    long count;
    int i;
    for (i = 0; i < CTM__NUMBERS; i++) {
        const char *text = ctm_file_meta(f, ctm__numbers[i].name);
        if (i == CTM__DISC_COUNT && !tr->disc != !text)
            return ctm__fail(f->ctx, tr->disc ? "%s: has no discriminator, but this run has one"
                                              : "%s: has a discriminator, but this run has none", f->path);
        if (!text && i < CTM__DISC_COUNT) return ctm__fail(f->ctx, "%s: is not a checkpoint of ctm.h", f->path);
        if (!text) continue;                           // a file of version 0.2.0 has nothing of the last step
        if (!ctm__field_read(tr, &ctm__numbers[i], text))
            return ctm__fail(f->ctx, "%s: \"%s\" is \"%.40s\", which is no %s", f->path, ctm__numbers[i].name, text,
                             i < CTM__COUNTS ? "count" : "number of its kind");
        if (i >= CTM__COUNTS) continue;
        memcpy(&count, (const char *)tr + ctm__numbers[i].at, sizeof count);
        if (count < 0 || count > LONG_MAX / 2)         // the other half leaves room to count on
            return ctm__fail(f->ctx, "%s: \"%s\" is \"%.40s\", which is no count", f->path, ctm__numbers[i].name, text);
    }
    return 1;
}

CTM__DEF int ctm_checkpoint_load_file(ctm_trainer *tr, const ctm_file *f) {
    const char *format = ctm_file_meta(f, "ctm.format");
    ctm__array array[CTM__ARRAYS];
    ctm_trainer next = *tr;                            // with the counts and figures of the file
    int i, n = ctm__trainer_arrays(tr, array);
    if (!format || strcmp(format, "checkpoint") != 0) return ctm__fail(f->ctx, "%s: is not a checkpoint of ctm.h", f->path);
    if (!ctm__read_numbers(&next, f) || !ctm__same_recipe(&tr->cfg, f)) return 0;
    for (i = 0; i < n; i++)                            // all of it is looked at before any of it is stored
        if (!ctm__read_values(array[i].net, f, array[i].prefix, array[i].squares, NULL)) return 0;
    for (i = 0; i < n; i++) ctm__read_values(array[i].net, f, array[i].prefix, array[i].squares, array[i].values);
    *tr = next;
    ctm__note_build(tr, f);
    return 1;
}

CTM__DEF int ctm_checkpoint_load(ctm_arena *scratch, ctm_trainer *tr, const char *path) {
    ctm_mark m = ctm_arena_mark(scratch);
    ctm_file *f = ctm_file_read(scratch, path);
    int ok = f && ctm_checkpoint_load_file(tr, f);
    ctm_arena_release(scratch, m);
    return ok;
}

#ifndef CTM_NO_IMAGES
// ---- the features of LPIPS

// VGG16's convolutions and the features' weights, in the widths that the file has; NULL with ctm_error.
static ctm_net *ctm__vgg_of_file(ctm_arena *a, const ctm_file *f) {
    ctm_noise none = ctm_noise_default();
    ctm_net *net = ctm_net_new(a, "vgg16", &none, 3, 0);
    int width[CTM__VGG_BLOCKS], in = 3, conv = 0, l, k;
    char name[48];
    for (l = 0; l < CTM__VGG_BLOCKS; l++)
        for (k = 0; k < ctm__vgg_convs[l]; k++, conv++) {
            const ctm_entry *e;
            snprintf(name, sizeof name, "features.%d.weight", ctm__vgg_layer[conv]);
            e = ctm_file_find(f, name);
            if (!e) { ctm__fail(f->ctx, "%s: has no tensor \"%s\"", f->path, name); return NULL; }
            if (e->ndim != 4 || e->shape[0] < 1 || e->shape[1] != in || e->shape[2] != 3 || e->shape[3] != 3) {
                ctm__fail(f->ctx, "%s: tensor \"%s\" must be [its width,%d,3,3], after the layer before it", f->path, name, in);
                return NULL;
            }
            width[l] = e->shape[0];
            ctm_param_conv(a, net, name, 3, in, width[l]);
            snprintf(name, sizeof name, "features.%d.bias", ctm__vgg_layer[conv]);
            ctm_param(a, net, name, width[l], 0);
            in = width[l];
        }
    for (l = 0; l < CTM__VGG_BLOCKS; l++) {
        snprintf(name, sizeof name, "lin%d.model.1.weight", l);
        ctm_param_conv(a, net, name, 1, width[l], 1);
    }
    return ctm__fill_net(a, net, f) ? net : NULL;
}

// A weight w of a squared difference becomes its root, which the features are scaled with.
static int ctm__lpips_roots(const ctm_net *net, const ctm_file *f) {
    int l;
    size_t i;
    for (l = 0; l < CTM__VGG_BLOCKS; l++) {
        ctm_tensor *w = net->param[2 * CTM__VGG_CONVS + l];
        for (i = 0; i < w->len; i++) {
            if (w->data[i] < 0)
                return ctm__fail(f->ctx, "%s: tensor \"%s\" holds %g, but weights of a distance cannot be negative", f->path,
                                 w->name, (double)w->data[i]);
            w->data[i] = (ctm_real)sqrt((double)w->data[i]);
        }
    }
    return 1;
}

static ctm_lpips *ctm__lpips_of(ctm_arena *a, const ctm_net *net, int size, int channels) {
    static const double mean[3] = {0.485, 0.456, 0.406}, deviation[3] = {0.229, 0.224, 0.225};   // of ImageNet's pixels in [0,1]
    ctm_lpips *lpips = (ctm_lpips *)ctm_alloc(a, sizeof *lpips);
    int window[4], c;
    lpips->net = ctm_net_clone(a, net);
    lpips->size = size;
    lpips->channels = channels;
    window[0] = window[1] = 1;
    window[2] = channels;
    window[3] = 3;
    lpips->scale = ctm__tensor(a, "1/scale", "leaf", 4, window);
    lpips->scale->data = (ctm_real *)ctm_alloc(a, lpips->scale->len * sizeof(ctm_real));
    lpips->shift = ctm__tensor(a, "-shift/scale", "leaf", 1, window + 3);
    lpips->shift->data = (ctm_real *)ctm_alloc(a, lpips->shift->len * sizeof(ctm_real));
    for (c = 0; c < 3; c++) {                          // ((x + 1)/2 - mean)/deviation
        lpips->scale->data[channels == 3 ? 3 * c + c : c] = (ctm_real)(0.5 / deviation[c]);
        lpips->shift->data[c] = (ctm_real)((0.5 - mean[c]) / deviation[c]);
    }
    return lpips;
}

CTM__DEF ctm_lpips *ctm_lpips_load(ctm_arena *a, const char *path, int size, int channels) {
    ctm_lpips *lpips = NULL;
    ctm_arena *scratch;
    ctm_file *f;
    ctm_net *net;
    CTM__REQUIRE(channels == 1 || channels == 3, "ctm_lpips_load: images of %d channels? 1 or 3 were expected", channels);
    CTM__REQUIRE(size > 0 && ctm__vgg_side(size) % 16 == 0,
                 "ctm_lpips_load: images of %d x %d pixels? From 256 on a multiple of 16 was expected", size, size);
    scratch = ctm__guest(a, "file");
    f = ctm_file_read(scratch, path);
    net = f ? ctm__vgg_of_file(scratch, f) : NULL;
    if (net && ctm__lpips_roots(net, f)) lpips = ctm__lpips_of(a, net, size, channels);
    ctm__guest_free(a, scratch);
    return lpips;
}
#endif // CTM_NO_IMAGES
#endif // CTM_NO_STDIO

// =====================================================================================================================
// CHAPTER 22. THE ENGINE ROOM: THE MATRIX PRODUCT AND THE CONVOLUTION
//
// Nearly all the time of a neural network goes into  C[i,j] = sum_k A[i,k]·B[k,j]  and into convolutions, which are nine such
// products read at shifted places. The definitions are nested loops; everything after them computes the same numbers, faster. No
// chapter before this one needs to know how.
// =====================================================================================================================

CTM__DEF void ctm_gemm_naive(int M, int N, int K, const ctm_real *A, ptrdiff_t a_row, ptrdiff_t a_step,
                             const ctm_real *B, ptrdiff_t b_step, ctm_real *C, ptrdiff_t c_row, const ctm_real *bias, int add) {
    int i, j, k;
    for (i = 0; i < M; i++)
        for (j = 0; j < N; j++) {
            ctm_real sum = add ? C[i * c_row + j] : bias ? bias[j] : 0;
            for (k = 0; k < K; k++) sum += A[i * a_row + k * a_step] * B[k * b_step + j];
            C[i * c_row + j] = sum;
        }
}

#ifndef CTM_NO_IMAGES
CTM__DEF void ctm_conv_naive(int B, int H, int W, int I, int O, int k, const ctm_real *x, const ctm_real *w, ctm_real *out) {
    int n, y, xx, ky, kx, i, o, r = k / 2;
    for (n = 0; n < B; n++) for (y = 0; y < H; y++) for (xx = 0; xx < W; xx++) for (o = 0; o < O; o++) {
        ctm_real sum = 0;
        for (ky = -r; ky <= r; ky++) for (kx = -r; kx <= r; kx++) {
            if (y + ky < 0 || y + ky >= H || xx + kx < 0 || xx + kx >= W) continue;          // outside there are zeros
            for (i = 0; i < I; i++)
                sum += x[(((ptrdiff_t)n * H + y + ky) * W + xx + kx) * I + i] * w[(((ky + r) * k + kx + r) * I + i) * O + o];
        }
        out[(((ptrdiff_t)n * H + y) * W + xx) * O + o] = sum;
    }
}
#endif

// THE STORY OF SPEED, with what each step gained: GFLOP/s printed by `build/bench story` on one core with AVX2, whose multiply-add peak
// was 91 (`build/bench fma_peak`; medians of five). Products are 512 x 512 x 512 (1.0 to 54) or 2048 (step 5), convolutions 3x3,
// 64 -> 64 channels, 32 x 32 pixels, batch 16.
//
//   1. Three loops: 1.0. Every multiply-add loads two numbers, and waits for the sum before it.
//   2. Vectors: 6.8. Let j run over the W lanes of a register: B's row is read W numbers at a time, A's entry is repeated.
//   3. A tile: 54. Hold MR rows x NV vectors of C in registers. For each k, load NV vectors of B and MR numbers of A and do
//      MR·NV multiply-adds. With 4 x 3 that is 12 independent sums (a sum takes 4 cycles, and two can start in each: 8 would
//      just do) and 12 multiply-adds for 7 loads. From here on the arithmetic is the limit, as long as the memory keeps up (step 5).
//      The registers decide how large a tile is. AVX2 has 16, of which 12 hold sums and 3 hold B; AVX-512 has 32, so 8 x 3 there; of
//      vectors of four, arm64 holds 8 x 2 and others 4 x 2. Where rows are left over, the tile repeats the last one; where columns
//      are, it has fewer vectors, and the last four are cut 2 + 2.
//   4. Strides: a convolution from 1.9 (its loops) to 60. A is read at A[i·a_row + k·a_step]. With the two exchanged the same code
//      multiplies by A transposed, which is what a weight gradient needs. And the rows of A need not be evenly spaced: the tile
//      takes a list of row pointers. So the rows can be PIXELS. With activations as [B,H,W,C], channels innermost, a convolution is
//
//           out[pixel] = sum over the nine taps of  x[pixel + tap] · w[tap]                 [I] · [I,O] -> [O]
//
//      nine segments of one long sum, the tile staying in registers through all of them; a pixel outside the image is a pointer
//      to zeros. Nothing is rearranged ("im2col"), no pixel copied. A piece of work is 256 pixels times one panel of columns; a
//      tile's rows are neighbouring pixels and may run on into the next image row or sample, so each keeps its own (n,y,x). A tap
//      that lies outside for all of them is skipped. The gradient with respect to x is the same convolution with w turned round
//      and transposed. The gradient with respect to w is the same tile with rows = input channels, k = pixels: for one tap it
//      walks along each image row over those pixels whose neighbour exists, the sums staying in registers for some 256 pixels;
//      dout's columns of these pixels are copied together first, so that all taps and channels find them in the cache.
//   5. Copies: 19 to 62 for n = 2048. The tile walks down B in steps of b_step. If that is a large power of two, the rows fall on
//      few places of the cache and push each other out, so B is copied first. A convolution copies its weights once, into panels as
//      wide as the tile, [panel][tap][input channel][width], zeros filling the last. A large product copies blocks of both: 256 rows
//      of B, as panels, serve up to 1,024 rows of C; 256 columns of 96 rows of A, which would lie pages apart, serve up to 768
//      columns. A's block stays in the second-level cache, B's panel in the first.
//   6. Fewer multiplications, Winograd: 100, counted as direct ones. Two neighbouring outputs of a 3-tap filter are
//      y0 = d0·g0 + d1·g1 + d2·g2  and  y1 = d1·g0 + d2·g1 + d3·g2: six products. But also
//
//           m1 = (d0 - d2)·g0     m2 = (d1 + d2)·(g0 + g1 + g2)/2     m3 = (d2 - d1)·(g0 - g1 + g2)/2     m4 = (d1 - d3)·g2
//           y0 = m1 + m2 + m3     y1 = m2 - m3 - m4
//
//      (multiply it out): four products. In two dimensions, rows then columns, a tile of 2x2 outputs needs 4x4 = 16 products
//      instead of 36: 2.25 times fewer. The sums of d and of g are transforms that are made once for all channels, so for each
//      of the 16 places there is one plain matrix product [tiles,I]·[I,O], done by the very tile of step 3. The filters are
//      transformed once for a call (U, as panels); tiles are taken 16 to 128 at a time, so that the 16 planes of their inputs stay
//      in the second-level cache. dx is the same with turned filters; dw runs the transforms the other way, dU = V^T·dM for each of
//      the 16 places, in blocks of 64 x 64 channels. It pays for even H and W and at least 16 channels on both sides.
//   7. Many cores (chapter 4): all loops of a training step on images are shared, those within the shards, too. With 64 channels
//      a hundredth of the time is spent outside of loops. What 64 cores would gain is computed, not measured: `build/bench scaling`
//      times every piece of a step on one core. For 64 channels and a batch of 64 it predicts that 16 cores work for 87 % of the
//      time and 64 cores for 65 %, and wants 13.6 GB/s from the memory of the latter. For two cores it predicts 18.1 s a step, and
//      18.1 s were measured.
//
// The tile is the one piece of code that must know the register width. So this file includes itself, once for each
// instruction set, and the part between "PASS" and "END OF PASS" below is compiled with W, MR, NV set and the compiler told
// what it may use; ctm_init then picks the best that the processor has. All fast rows (exp, SiLU, norms, optimiser) share this.

#ifndef CTM_NO_IMAGES
enum { CTM__PIXELS = 256,              // pixels in one piece of a direct convolution
       CTM__WTILES = 64,               // tiles that a Winograd weight gradient transforms at a time
       CTM__WBLOCK = 64,               // its pieces are blocks of 64 x 64 channels
       CTM__AHEAD  = 32,               // tiles whose pixels are prefetched, as memory answers late
       CTM__PACK_ROWS = 16 };          // rows of weights that are packed together

// Input channels in one piece of a direct weight gradient: about half of them, so that there are two pieces, but not too many. A
// multiple of 8, hence of every MR: a tile that reached into the next piece would write what is not its own.
static int ctm__channels_each(int k, int I) { return ctm__imin(((I + 1) / 2 + 7) / 8 * 8, k == 1 ? 128 : 32); }
#endif

// (The x87 of 32-bit machines computes in long double; with -std=c99 gcc then finds a product of float and vector a mistake.)
#if defined(__STRICT_ANSI__) && defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ == 2
#elif defined(__GNUC__) && !defined(__TINYC__) && !defined(CTM_NO_SIMD) && !defined(CTM_REAL_DOUBLE)
#  define CTM__VECTORS 1
#  if defined(__x86_64__) || defined(__i386__)
#    define CTM__X86 1
#  endif
#endif
#if defined(__clang__)
#  define CTM__UNROLL _Pragma("clang loop unroll(full)")
#  define CTM__TWICE  _Pragma("clang loop unroll_count(2)")
#elif defined(__GNUC__) && !defined(__TINYC__)
#  define CTM__UNROLL _Pragma("GCC unroll 16")    // without it gcc -O2 keeps the tile in memory
#  define CTM__TWICE  _Pragma("GCC unroll 2")
#else
#  define CTM__UNROLL
#  define CTM__TWICE
#endif
#if defined(__GNUC__)
#  define CTM__INLINE inline __attribute__((__always_inline__, __unused__))
#else
#  define CTM__INLINE inline
#endif
#if defined(__GNUC__) && !defined(__TINYC__)
#  define CTM__PREFETCH(p) __builtin_prefetch(p)
#else
#  define CTM__PREFETCH(p) ((void)(p))
#endif
#define CTM__GLUE2(a, b) a##b
#define CTM__GLUE(a, b)  CTM__GLUE2(a, b)
#define CTM__FN(name)    CTM__GLUE(ctm__##name, CTM__SUFFIX)     // ctm__tile_avx512, ...

enum { CTM__WIDEST = 16 };                                       // lanes of the widest vector
static const ctm_real ctm__zeros[3 * CTM__WIDEST] = {0};         // as wide as any tile

static CTM__INLINE float   ctm__float_of(int32_t bits) { float v; memcpy(&v, &bits, 4); return v; }
static CTM__INLINE int32_t ctm__bits_of(float v)       { int32_t b; memcpy(&b, &v, 4); return b; }
#endif /* first part of the implementation */

#if defined(CTM_IMPLEMENTATION) && !defined(CTM__PASS) && !defined(CTM__PASSES)
#define CTM__PASSES
#define CTM__PASS
#  define CTM__SUFFIX _portable
#  define CTM__W  1
#  ifdef CTM__VECTORS                                            // the tile to compare the others with
#    define CTM__MR 1
#    define CTM__NV 1
#  else
#    define CTM__MR 4
#    define CTM__NV 3
#  endif
#  define CTM__TARGET
#  include CTM_SELF
#  if defined(CTM__VECTORS) && (defined(__SSE2__) || defined(__ARM_NEON) || defined(__wasm_simd128__) || defined(__VSX__))
#    define CTM__HAS_V128 1
#    define CTM__SUFFIX _v128
#    define CTM__W  4
#    ifdef __aarch64__
#      define CTM__MR 8
#    else
#      define CTM__MR 4
#    endif
#    define CTM__NV 2                                            // of 8 x 3 gcc keeps some sums in memory, even with 32 registers
#    define CTM__TARGET
#    if defined(__aarch64__) && defined(__clang__) && __clang_major__ >= 16
#      define CTM__FUSED(a, b, c) __builtin_elementwise_fma(a, b, c)
#    elif defined(__aarch64__) && !defined(__clang__)
#      define CTM__FUSED(a, b, c) __builtin_aarch64_fmav4sf(a, b, c)
#    endif
#    include CTM_SELF
#  endif
#  if defined(CTM__X86) && defined(CTM__VECTORS)
#    define CTM__SUFFIX _avx2
#    define CTM__W  8
#    define CTM__MR 4
#    define CTM__NV 3
#    define CTM__TARGET __attribute__((target("avx2,fma")))
#    define CTM__FUSED(a, b, c) __builtin_ia32_vfmaddps256(a, b, c)
#    include CTM_SELF
#    define CTM__SUFFIX _avx512
#    define CTM__W  16
#    define CTM__MR 8
#    define CTM__NV 3
#    define CTM__TARGET __attribute__((target("avx512f")))
#    ifdef __clang__
#      define CTM__FUSED(a, b, c) __builtin_ia32_vfmaddps512_mask(a, b, c, (unsigned short)-1, 4)
#    else                                                        // gcc's mask has a sign
#      define CTM__FUSED(a, b, c) __builtin_ia32_vfmaddps512_mask(a, b, c, -1, 4)
#    endif
#    include CTM_SELF
#  endif
#undef CTM__PASS
#endif

#ifdef CTM__PASS
// ---- PASS: read once for each instruction set -----------------------------------------------------------------------
// V is a vector of W real numbers, VI the vector of W integers of the same size. A comparison of vectors gives an integer
// vector of all-ones or all-zeros lanes; CTM__SELECT picks by it, since C has no ?: for vectors.

#define V CTM__FN(vec)
#define VI CTM__FN(intvec)
#define CTM__FUN static CTM__TARGET
#if CTM__W == 1
typedef ctm_real V;
typedef int32_t  VI;
#  define CTM__LOADU(p)          (*(p))
#  define CTM__TO_INT(v)         ((v) == (v) ? (int32_t)(v) : 0)
#  define CTM__TO_REAL(i)        ((ctm_real)(i))
#  define CTM__BITS(v)           ctm__bits_of((float)(v))
#  define CTM__FROM_BITS(i)      ctm__float_of(i)
#  define CTM__SELECT(m, a, b)   ((m) ? (a) : (b))
#else
typedef ctm_real V __attribute__((vector_size(CTM__W * 4)));
typedef int32_t  VI __attribute__((vector_size(CTM__W * 4)));
typedef ctm_real CTM__FN(vecu) __attribute__((vector_size(CTM__W * 4), aligned(4), may_alias));
#  define CTM__LOADU(p)          (*(const CTM__FN(vecu) *)(p))
#  define CTM__TO_INT(v)         __builtin_convertvector(v, VI)
#  define CTM__TO_REAL(i)        __builtin_convertvector(i, V)
#  define CTM__BITS(v)           ((VI)(v))
#  define CTM__FROM_BITS(i)      ((V)(i))
#  define CTM__SELECT(m, a, b)   ((V)(((VI)(a) & (m)) | ((VI)(b) & ~(m))))
#endif

// The end of a row, m numbers that fill no vector: beside zeros, and put back. They are calls, so that the loops around them stay short.
CTM__FUN CTM__NOINLINE const ctm_real *CTM__FN(part)(ctm_real *part, const ctm_real *p, size_t m) {
    size_t at = 0;
    memset(part, 0, CTM__WIDEST * sizeof *part);
    if (m & 8) { memcpy(part, p, 8 * sizeof *p); at = 8; }
    if (m & 4) { memcpy(part + at, p + at, 4 * sizeof *p); at += 4; }
    if (m & 2) { memcpy(part + at, p + at, 2 * sizeof *p); at += 2; }
    if (m & 1) part[at] = p[at];
    return part;
}
CTM__FUN CTM__NOINLINE void CTM__FN(put)(ctm_real *p, const ctm_real *part, size_t m) {
    size_t at = 0;
    if (m & 8) { memcpy(p, part, 8 * sizeof *p); at = 8; }
    if (m & 4) { memcpy(p + at, part + at, 4 * sizeof *p); at += 4; }
    if (m & 2) { memcpy(p + at, part + at, 2 * sizeof *p); at += 2; }
    if (m & 1) p[at] = part[at];
}

// The first m of W lanes from and to memory; missing lanes are zero.
CTM__FUN CTM__INLINE void CTM__FN(load)(V *v, const ctm_real *p, size_t m) {
    ctm_real part[CTM__WIDEST];
    *v = CTM__LOADU(CTM__W == 1 || m >= CTM__W ? p : CTM__FN(part)(part, p, m));
}
CTM__FUN CTM__INLINE void CTM__FN(store)(ctm_real *p, const V *v, size_t m) {
    ctm_real part[CTM__WIDEST];
    if (CTM__W == 1 || m >= CTM__W) memcpy(p, v, sizeof *v);
    else { memcpy(part, v, sizeof *v); CTM__FN(put)(p, part, m); }
}

CTM__FUN CTM__INLINE void CTM__FN(splat)(V *v, ctm_real c) { memset(v, 0, sizeof *v); *v = c - *v; }

// a·b + c, where b is a vector, a and c are vectors or numbers: rounded once where the instruction set has an instruction for that,
// twice elsewhere. It is written wherever speed asks for it; every other product and sum rounds on its own.
#ifdef CTM__FUSED
#  define CTM__ZERO(v)       ((V)((VI)(v) ^ (VI)(v)))        // number - CTM__ZERO(v): the number in all lanes
#  define CTM__MADD(a, b, c) CTM__FUSED((a) - CTM__ZERO(b), b, (c) - CTM__ZERO(b))
#else
#  define CTM__MADD(a, b, c) ((a) * (b) + (c))
#endif

// THE TILE. acc[i][j] += A_i[k·a_step] · B[k·b_step + j] for K values of k: MR rows by pointer, NV vectors of columns. MR and NV
// are constants wherever this is inlined, so the loops over i and j unroll and acc lives in registers. Everything fast is this. (Two
// values of k in one turn of the loop: fewer instructions that only count and jump.)
CTM__FUN CTM__INLINE void CTM__FN(run)(const int MR, const int NV, V (*acc)[CTM__NV], int K, const ctm_real *const *row,
                                       ptrdiff_t a_step, const ctm_real *B, ptrdiff_t b_step) {
    const ctm_real *A[CTM__MR];
    V b[CTM__NV];
    ptrdiff_t k;
    int i, j;
    CTM__UNROLL
    for (i = 0; i < MR; i++) A[i] = row[i];
    CTM__TWICE
    for (k = 0; k < K; k++, B += b_step) {
        CTM__UNROLL
        for (j = 0; j < NV; j++) b[j] = CTM__LOADU(B + j * CTM__W);
        CTM__UNROLL
        for (i = 0; i < MR; i++) {
            ctm_real a = A[i][k * a_step];
            CTM__UNROLL
            for (j = 0; j < NV; j++) acc[i][j] = CTM__MADD(a, b[j], acc[i][j]);
        }
    }
}

// One tile of a matrix product: `count` rows of C, the sums of which begin at the rows of `from` (zeros, the bias, or C itself). Rows that
// the tile has to spare repeat the last one, and are not stored.
CTM__FUN CTM__INLINE void CTM__FN(tile)(const int MR, const int NV, int count, int K, const ctm_real *A, ptrdiff_t a_row, ptrdiff_t a_step,
                                        const ctm_real *B, ptrdiff_t b_step, ctm_real *C, ptrdiff_t c_row,
                                        const ctm_real *from, ptrdiff_t from_row) {
    V acc[CTM__MR][CTM__NV];
    const ctm_real *row[CTM__MR];
    int i, j;
    CTM__UNROLL
    for (i = 0; i < MR; i++) {
        int at = ctm__imin(i, count - 1);
        row[i] = A + at * a_row;
        CTM__UNROLL
        for (j = 0; j < NV; j++) acc[i][j] = CTM__LOADU(from + at * from_row + j * CTM__W);
    }
    CTM__FN(run)(MR, NV, acc, K, row, a_step, B, b_step);
    CTM__UNROLL
    for (i = 0; i < MR; i++) {
        if (i >= count) break;
        CTM__UNROLL
        for (j = 0; j < NV; j++) memcpy(C + i * c_row + j * CTM__W, &acc[i][j], sizeof(V));
    }
}

// All M rows of NV vectors of columns: full tiles, and a row or two alone where most of a tile would be to spare.
CTM__FUN CTM__INLINE void CTM__FN(panel)(const int NV, int M, int K, const ctm_real *A, ptrdiff_t a_row, ptrdiff_t a_step,
                                         const ctm_real *B, ptrdiff_t b_step, ctm_real *C, ptrdiff_t c_row,
                                         const ctm_real *from, ptrdiff_t from_row) {
    int i = 0, rows, r;
    for (; i < M; i += rows) {
        rows = M - i > CTM__MR / 4 ? ctm__imin(CTM__MR, M - i) : 1;
        for (r = i + rows; r < i + 2 * rows && r < M; r++) {     // the next tile's rows of C
            CTM__PREFETCH(C + r * c_row);
            CTM__PREFETCH(C + r * c_row + NV * CTM__W - 1);
        }
        if (rows == 1)
            CTM__FN(tile)(1, NV, 1, K, A + i * a_row, a_row, a_step, B, b_step, C + i * c_row, c_row, from + i * from_row, from_row);
        else
            CTM__FN(tile)(CTM__MR, NV, rows, K, A + i * a_row, a_row, a_step, B, b_step, C + i * c_row, c_row,
                          from + i * from_row, from_row);
    }
}

// The same with the width as a variable.
CTM__FUN CTM__NOINLINE void CTM__FN(block)(int nv, int M, int K, const ctm_real *A, ptrdiff_t a_row, ptrdiff_t a_step, const ctm_real *B,
                                           ptrdiff_t b_step, ctm_real *C, ptrdiff_t c_row, const ctm_real *from, ptrdiff_t from_row) {
    if (CTM__NV == 1 || nv == CTM__NV) CTM__FN(panel)(CTM__NV, M, K, A, a_row, a_step, B, b_step, C, c_row, from, from_row);
    else if (CTM__NV > 2 && nv == 2) CTM__FN(panel)(2, M, K, A, a_row, a_step, B, b_step, C, c_row, from, from_row);
    else CTM__FN(panel)(1, M, K, A, a_row, a_step, B, b_step, C, c_row, from, from_row);
}

// How wide the next panel is when so many vectors are left: four are 2 + 2, as a panel of one vector feeds the tile badly.
static CTM__INLINE int CTM__FN(width)(int left) { return left == CTM__NV + 1 ? (left + 1) / 2 : ctm__imin(left, CTM__NV); }

// Panel number p of N columns: its width in vectors, and its first column.
CTM__FUN int CTM__FN(panel_at)(int N, int p, int *first) {
    int left = (N + CTM__W - 1) / CTM__W, nv = CTM__FN(width)(left), at = 0;
    for (; p > 0; p--) {
        at += nv;
        left -= nv;
        nv = CTM__FN(width)(left);
    }
    *first = at * CTM__W;
    return nv;
}

// The last N < W columns: B's columns are copied beside zeros, 128 rows at a time, and C's tile goes through a small copy.
CTM__FUN void CTM__FN(edge)(int M, int N, int K, const ctm_real *A, ptrdiff_t a_row, ptrdiff_t a_step, const ctm_real *B,
                            ptrdiff_t b_step, ctm_real *C, ptrdiff_t c_row, const ctm_real *from, ptrdiff_t from_row) {
    ctm_real b[128 * CTM__W], c[CTM__MR * CTM__W];
    size_t n = (size_t)N * sizeof *c;
    int k0, i, r;
    memset(b, 0, sizeof b);
    memset(c, 0, sizeof c);
    for (k0 = 0; k0 < K || k0 == 0; k0 += 128, from = C, from_row = c_row) {
        int kn = ctm__imin(128, K - k0);
        for (r = 0; r < kn; r++) memcpy(b + r * CTM__W, B + (k0 + r) * b_step, n);
        for (i = 0; i < M; i += CTM__MR) {
            int m = ctm__imin(CTM__MR, M - i);
            for (r = 0; r < m; r++) memcpy(c + r * CTM__W, from + (i + r) * from_row, n);
            CTM__FN(block)(1, m, kn, A + i * a_row + k0 * a_step, a_row, a_step, b, CTM__W, c, CTM__W, c, CTM__W);
            for (r = 0; r < m; r++) memcpy(C + (i + r) * c_row, c + r * CTM__W, n);
        }
    }
}

CTM__FUN void CTM__FN(gemm)(int M, int N, int K, const ctm_real *A, ptrdiff_t a_row, ptrdiff_t a_step, const ctm_real *B,
                            ptrdiff_t b_step, ctm_real *C, ptrdiff_t c_row, const ctm_real *bias, int add) {
    int j, nv;
    for (j = 0; j < N; j += nv * CTM__W) {
        const ctm_real *from = add ? C + j : bias ? bias + j : ctm__zeros;
        nv = CTM__FN(width)((N - j) / CTM__W);
        if (nv) CTM__FN(block)(nv, M, K, A, a_row, a_step, B + j, b_step, C + j, c_row, from, add ? c_row : 0);
        else { CTM__FN(edge)(M, N - j, K, A, a_row, a_step, B + j, b_step, C + j, c_row, from, add ? c_row : 0); break; }
    }
}

#ifndef CTM_NO_IMAGES
// ---- the direct convolution

// Weights into panels [panel][k·k·I][width]: rows row0..row1-1 of all panels. A row is (tap, input channel). Turned: tap t is
// w's tap k·k-1-t, and its entry (row, column) is w's (column, row).
CTM__FUN void CTM__FN(pack)(const ctm__conv *g, int row0, int row1) {
    int taps = g->k * g->k, r, c, o, nv;
    for (o = 0; o < g->O; o += nv * CTM__W) {
        int width, n;
        nv = CTM__FN(width)((g->O - o + CTM__W - 1) / CTM__W);
        width = nv * CTM__W;
        n = ctm__imin(width, g->O - o);
        for (r = row0; r < row1; r++) {
            ctm_real *to = g->packed + (size_t)o * (size_t)(taps * g->I) + (size_t)r * (size_t)width;
            if (!g->turned) memcpy(to, g->w + (size_t)r * (size_t)g->O + o, (size_t)n * sizeof *to);
            else {
                const ctm_real *from = g->w + ((size_t)(taps - 1 - r / g->I) * (size_t)g->O + (size_t)o) * (size_t)g->I + r % g->I;
                for (c = 0; c < n; c++) to[c] = from[(size_t)c * (size_t)g->I];
            }
            if (n < width) memset(to + n, 0, (size_t)(width - n) * sizeof *to);
        }
    }
}

// What every pixel of sample n adds to channels o..o+m-1.
CTM__FUN CTM__INLINE void CTM__FN(bias)(const ctm__conv *g, size_t n, int o, size_t m, V *bias) {
    V e;
    memset(bias, 0, sizeof *bias);
    if (g->b)     { CTM__FN(load)(&e, g->b + o, m); *bias += e; }
    if (g->shift) { CTM__FN(load)(&e, g->shift + n * (size_t)g->O + o, m); *bias += e; }
}
// A sum of products on its way out: channels o..o+m-1 of pixel p.
CTM__FUN CTM__INLINE void CTM__FN(finish)(const ctm__conv *g, size_t p, int o, size_t m, const V *bias, V *v) {
    size_t at = p * (size_t)g->O + (size_t)o;
    V e;
    *v += *bias;
    if (g->res) { CTM__FN(load)(&e, g->res + at, m); *v += e; }
    *v *= g->alpha;
    if (g->add) { CTM__FN(load)(&e, g->out + at, m); *v += e; }
    CTM__FN(store)(g->out + at, v, m);
}

// The sums of a tile, for the first `count` pixels from p0 on, which lie in the samples n.
CTM__FUN CTM__NOINLINE void CTM__FN(conv_out)(int nv, const ctm__conv *g, int p0, int count, const int *n, int o, V (*sum)[CTM__NV]) {
    int i, j;
    for (j = 0; j < nv && o + j * CTM__W < g->O; j++) {
        V bias;
        for (i = 0; i < count; i++) {
            if (i == 0 || n[i] != n[i - 1]) CTM__FN(bias)(g, (size_t)n[i], o + j * CTM__W, (size_t)(g->O - o - j * CTM__W), &bias);
            CTM__FN(finish)(g, (size_t)(p0 + i), o + j * CTM__W, (size_t)(g->O - o - j * CTM__W), &bias, &sum[i][j]);
        }
    }
}

// MR pixels from p0 on, `count` of which exist, times one panel of output channels from o on.
CTM__FUN CTM__INLINE void CTM__FN(conv_tile)(const int NV, const ctm__conv *g, int p0, int count, const ctm_real *panel, int o) {
    V acc[CTM__MR][CTM__NV], sum[CTM__MR][CTM__NV];
    const ctm_real *centre[CTM__MR], *row[CTM__MR];
    int y[CTM__MR], x[CTM__MR], n[CTM__MR], i, j, dy, dx, r = g->k / 2;
    memset(acc, 0, sizeof acc);
    x[0] = p0 % g->W;
    y[0] = p0 / g->W % g->H;
    n[0] = p0 / g->W / g->H;
    for (i = 0; i < CTM__MR; i++) {
        if (i) {
            int step = i < count, next, image;                   // spare rows repeat the last pixel
            x[i] = x[i - 1] + step; next = x[i] == g->W;
            y[i] = y[i - 1] + next; image = y[i] == g->H;
            n[i] = n[i - 1] + image;
            if (next) x[i] = 0;
            if (image) y[i] = 0;
        }
        centre[i] = g->x + (size_t)(p0 + ctm__imin(i, count - 1)) * (size_t)g->I;
    }
    for (dy = -r; dy <= r; dy++)
        for (dx = -r; dx <= r; dx++, panel += g->I * NV * CTM__W) {
            ptrdiff_t shift = ((ptrdiff_t)dy * g->W + dx) * g->I;
            int any = 0;
            CTM__UNROLL
            for (i = 0; i < CTM__MR; i++) {
                int inside = (unsigned)(y[i] + dy) < (unsigned)g->H && (unsigned)(x[i] + dx) < (unsigned)g->W;
                row[i] = inside ? centre[i] + shift : g->zero;
                any |= inside;
            }
            if (any) CTM__FN(run)(CTM__MR, NV, acc, g->I, row, 1, panel, NV * CTM__W);
        }
    CTM__UNROLL
    for (i = 0; i < CTM__MR; i++) {
        CTM__UNROLL
        for (j = 0; j < NV; j++) sum[i][j] = acc[i][j];
    }
    CTM__FN(conv_out)(NV, g, p0, count, n, o, sum);
}

CTM__FUN void CTM__FN(conv_panel)(const ctm__conv *g, int panel, int p0, int p1) {
    int o, nv = CTM__FN(panel_at)(g->O, panel, &o), p;
    const ctm_real *w = g->packed + (size_t)o * (size_t)(g->k * g->k * g->I);
    const ctm_real *last = g->x + (size_t)g->B * (size_t)g->H * (size_t)g->W * (size_t)g->I;
    int r = g->k / 2;
    for (p = p0; p < p1; p += CTM__MR) {
        int count = ctm__imin(CTM__MR, p1 - p);
        const ctm_real *ahead = g->x + (size_t)(p + 2 * CTM__MR + r * g->W) * (size_t)g->I, *stop = ahead + CTM__MR * g->I;
        for (; ahead < stop && ahead < last; ahead += 64 / sizeof(ctm_real)) CTM__PREFETCH(ahead);
        if (CTM__NV == 1 || nv == CTM__NV) CTM__FN(conv_tile)(CTM__NV, g, p, count, w, o);
        else if (CTM__NV > 2 && nv == 2) CTM__FN(conv_tile)(2, g, p, count, w, o);
        else CTM__FN(conv_tile)(1, g, p, count, w, o);
    }
}

// dw += the sums of a tile: `count` rows of it, columns o.. of O.
CTM__FUN CTM__NOINLINE void CTM__FN(weights_out)(int nv, int count, size_t O, int o, V (*sum)[CTM__NV], ctm_real *dw) {
    int i, j;
    for (i = 0; i < count; i++, dw += O)
        for (j = 0; j < nv && (size_t)(o + j * CTM__W) < O; j++) {
            size_t m = O - (size_t)(o + j * CTM__W);
            V e;
            CTM__FN(load)(&e, dw + j * CTM__W, m);
            e += sum[i][j];
            CTM__FN(store)(dw + j * CTM__W, &e, m);
        }
}

// dw[tap][i][o] += sum over pixels of x[pixel + tap][i]·dout[pixel][o], for MR input channels from i0 on, one tap and one panel,
// over the image rows r0..r1-1. dout's panel of those rows has been copied to `d`, and multiplied by alpha.
CTM__FUN CTM__INLINE void CTM__FN(weights_tile)(const int NV, const ctm__conv *g, int tap, int i0, int o, int r0,
                                                int r1, const ctm_real *d) {
    V acc[CTM__MR][CTM__NV], sum[CTM__MR][CTM__NV];
    const ctm_real *row[CTM__MR];
    int half = g->k / 2, dy = tap / g->k - half, dx = tap % g->k - half, count = ctm__imin(CTM__MR, g->I - i0), i, j, r;
    int x0 = dx < 0 ? -dx : 0, n = ctm__imin(g->W, g->W - dx) - x0;          // pixels of a row whose neighbour dx exists
    ctm_real *dw = g->dw + ((size_t)tap * (size_t)g->I + (size_t)i0) * (size_t)g->O + o;
    memset(acc, 0, sizeof acc);
    for (r = r0; r < r1; r++) {
        const ctm_real *x = g->x + ((ptrdiff_t)(r + dy) * g->W + x0 + dx) * g->I + i0;
        if ((unsigned)(r % g->H + dy) >= (unsigned)g->H || n <= 0) continue;
        CTM__UNROLL
        for (i = 0; i < CTM__MR; i++) row[i] = x + ctm__imin(i, count - 1);
        CTM__FN(run)(CTM__MR, NV, acc, n, row, g->I, d + ((ptrdiff_t)(r - r0) * g->W + x0) * NV * CTM__W, NV * CTM__W);
    }
    CTM__UNROLL
    for (i = 0; i < CTM__MR; i++) {
        CTM__UNROLL
        for (j = 0; j < NV; j++) sum[i][j] = acc[i][j];
    }
    CTM__FN(weights_out)(NV, count, (size_t)g->O, o, sum, dw);
}

// ctm__channels_each input channels from i0 on, one panel, all taps, all pixels, a block of image rows at a time: a block of x and dout
// stays in the second-level cache while all taps use it, and the next block is asked for meanwhile.
CTM__FUN void CTM__FN(conv_weights)(const ctm__conv *g, int i0, int panel, ctm_real *scratch) {
    int o, nv = CTM__FN(panel_at)(g->O, panel, &o), taps = g->k * g->k, rows = g->B * g->H,
        i1 = ctm__imin(g->I, i0 + ctm__channels_each(g->k, g->I));
    int each = g->W < CTM__PIXELS ? CTM__PIXELS / g->W : 1, r, tap, i;
    size_t n = (size_t)ctm__imin(nv * CTM__W, g->O - o), width = (size_t)(nv * CTM__W), p, last = (size_t)rows * (size_t)g->W;
    memset(scratch, 0, (size_t)(each * g->W) * width * sizeof *scratch);
    for (r = 0; r < rows; r += each) {
        int r1 = ctm__imin(rows, r + each);
        size_t first = (size_t)r * (size_t)g->W, pixels = (size_t)(r1 - r) * (size_t)g->W;
        for (p = 0; p < pixels; p++) {
            size_t c;
            const ctm_real *from = g->dout + (first + p) * (size_t)g->O + o;
            for (c = 0; c < n; c += CTM__W) {
                V v;
                CTM__FN(load)(&v, from + c, n - c);
                v *= g->alpha;
                CTM__FN(store)(scratch + p * width + c, &v, n - c);
            }
        }
        for (tap = 0; tap < taps; tap++) {
            size_t ahead = first + pixels + (size_t)tap * pixels / (size_t)taps,
                stop = first + pixels + (size_t)(tap + 1) * pixels / (size_t)taps;
            for (; ahead < stop && ahead < last; ahead++) {
                size_t c;
                for (c = 0; c < n; c += 64 / sizeof(ctm_real)) CTM__PREFETCH(g->dout + ahead * (size_t)g->O + (size_t)o + c);
                for (i = i0; i < i1; i += 64 / (int)sizeof(ctm_real)) CTM__PREFETCH(g->x + ahead * (size_t)g->I + i);
            }
            for (i = i0; i < i1; i += CTM__MR) {
                if (CTM__NV == 1 || nv == CTM__NV) CTM__FN(weights_tile)(CTM__NV, g, tap, i, o, r, r1, scratch);
                else if (CTM__NV > 2 && nv == 2) CTM__FN(weights_tile)(2, g, tap, i, o, r, r1, scratch);
                else CTM__FN(weights_tile)(1, g, tap, i, o, r, r1, scratch);
            }
        }
    }
}

// ---- Winograd F(2x2, 3x3)
// In one dimension, with the vectors d [4], g [3], m [4], y [2] of the story above:  y = A^T·[(G·g) * (B^T·d)]. In two, each
// matrix is applied to rows and to columns. Index 4·row + column; every entry is a vector over channels.
//
//         | 1  0 -1  0 |         | 1   0   0  |
//   B^T = | 0  1  1  0 |     G = | 1/2 1/2 1/2|     A^T = | 1  1  1  0 |
//         | 0 -1  1  0 |         | 1/2-1/2 1/2|           | 0  1 -1 -1 |
//         | 0  1  0 -1 |         | 0   0   1  |

CTM__FUN CTM__INLINE void CTM__FN(wino_input)(const V *d, V *v) {              // B^T·d·B
    V t[16];
    int i;
    CTM__UNROLL
    for (i = 0; i < 4; i++) {
        t[i]      = d[i] - d[8 + i];
        t[4 + i]  = d[4 + i] + d[8 + i];
        t[8 + i]  = d[8 + i] - d[4 + i];
        t[12 + i] = d[4 + i] - d[12 + i];
    }
    CTM__UNROLL
    for (i = 0; i < 16; i += 4) {
        v[i]     = t[i] - t[i + 2];
        v[i + 1] = t[i + 1] + t[i + 2];
        v[i + 2] = t[i + 2] - t[i + 1];
        v[i + 3] = t[i + 1] - t[i + 3];
    }
}
CTM__FUN CTM__INLINE void CTM__FN(wino_output)(const V *m, V *y) {             // A^T·m·A
    V t[8];
    int i;
    CTM__UNROLL
    for (i = 0; i < 4; i++) {
        t[i]     = m[i] + m[4 + i] + m[8 + i];
        t[4 + i] = m[4 + i] - m[8 + i] - m[12 + i];
    }
    CTM__UNROLL
    for (i = 0; i < 2; i++) {
        y[2 * i]     = t[4 * i] + t[4 * i + 1] + t[4 * i + 2];
        y[2 * i + 1] = t[4 * i + 1] - t[4 * i + 2] - t[4 * i + 3];
    }
}
CTM__FUN CTM__INLINE void CTM__FN(wino_filter)(const V *g, V *u) {             // G·g·G^T
    const ctm_real half = (ctm_real)0.5;
    V t[12];
    int i;
    CTM__UNROLL
    for (i = 0; i < 3; i++) {
        V sum = (g[i] + g[6 + i]) * half, mid = g[3 + i] * half;
        t[i] = g[i]; t[3 + i] = sum + mid; t[6 + i] = sum - mid; t[9 + i] = g[6 + i];
    }
    CTM__UNROLL
    for (i = 0; i < 4; i++) {
        V sum = (t[3 * i] + t[3 * i + 2]) * half, mid = t[3 * i + 1] * half;
        u[4 * i] = t[3 * i]; u[4 * i + 1] = sum + mid; u[4 * i + 2] = sum - mid; u[4 * i + 3] = t[3 * i + 2];
    }
}
// The weight gradient runs the other way: with dm = A·dy·A^T, du = sum over tiles of v·dm, and dg = G^T·du·G.
CTM__FUN CTM__INLINE void CTM__FN(wino_doutput)(const V *y, V *m) {            // A·dy·A^T
    V t[8];
    int i;
    CTM__UNROLL
    for (i = 0; i < 2; i++) { t[i] = y[i]; t[2 + i] = y[i] + y[2 + i]; t[4 + i] = y[i] - y[2 + i]; t[6 + i] = -y[2 + i]; }
    CTM__UNROLL
    for (i = 0; i < 4; i++) {
        m[4 * i] = t[2 * i]; m[4 * i + 1] = t[2 * i] + t[2 * i + 1]; m[4 * i + 2] = t[2 * i] - t[2 * i + 1]; m[4 * i + 3] = -t[2 * i + 1];
    }
}
CTM__FUN CTM__INLINE void CTM__FN(wino_dfilter)(const V *u, V *g) {            // G^T·du·G
    const ctm_real half = (ctm_real)0.5;
    V t[12];
    int i;
    CTM__UNROLL
    for (i = 0; i < 4; i++) {
        V sum = (u[4 + i] + u[8 + i]) * half, difference = (u[4 + i] - u[8 + i]) * half;
        t[i] = u[i] + sum; t[4 + i] = difference; t[8 + i] = u[12 + i] + sum;
    }
    CTM__UNROLL
    for (i = 0; i < 3; i++) {
        V sum = (t[4 * i + 1] + t[4 * i + 2]) * half, difference = (t[4 * i + 1] - t[4 * i + 2]) * half;
        g[3 * i] = t[4 * i] + sum; g[3 * i + 1] = difference; g[3 * i + 2] = t[4 * i + 3] + sum;
    }
}

// U in panels [panel][16][I][width], for rows (input channels) row0..row1-1, at most CTM__PACK_ROWS. Turned filters are brought
// into place by blocks of rows x one vector, so that both memory and cache lines are used whole.
CTM__FUN void CTM__FN(wino_filters)(const ctm__conv *g, int row0, int row1) {
    ctm_real block[9][CTM__PACK_ROWS][CTM__W];
    int i, o, nv, j, c, tap;
    memset(block, 0, sizeof block);
    for (o = 0; o < g->O; o += nv * CTM__W) {
        nv = CTM__FN(width)((g->O - o + CTM__W - 1) / CTM__W);
        for (j = 0; j < nv; j++) {
            int c0 = o + j * CTM__W, n = ctm__imin(CTM__W, g->O - c0);
            if (n < CTM__W) memset(block, 0, sizeof block);
            for (tap = 0; tap < 9; tap++) {
                if (!g->turned)
                    for (i = row0; i < row1; i++)
                        memcpy(block[tap][i - row0], g->w + ((size_t)tap * (size_t)g->I + (size_t)i) * (size_t)g->O + c0,
                               (size_t)n * sizeof(ctm_real));
                else
                    for (c = 0; c < n; c++) {
                        const ctm_real *from = g->w + ((size_t)(8 - tap) * (size_t)g->O + (size_t)(c0 + c)) * (size_t)g->I;
                        for (i = row0; i < row1; i++) block[tap][i - row0][c] = from[i];
                    }
            }
            for (i = row0; i < row1; i++) {
                ctm_real *to = g->packed + (size_t)o * (size_t)(16 * g->I) + ((size_t)i * (size_t)nv + (size_t)j) * CTM__W;
                V f[9], u[16];
                CTM__UNROLL
                for (tap = 0; tap < 9; tap++) memcpy(&f[tap], block[tap][i - row0], sizeof(V));
                CTM__FN(wino_filter)(f, u);
                CTM__UNROLL
                for (tap = 0; tap < 16; tap++)
                    memcpy(to + (size_t)tap * (size_t)g->I * (size_t)(nv * CTM__W), &u[tap], sizeof(V));
            }
        }
    }
}

// Where a tile lies: sample n, its upper left output at row 2·y, column 2·x.
typedef struct CTM__FN(place) { int n, y, x; } CTM__FN(place);
CTM__FUN CTM__INLINE CTM__FN(place) CTM__FN(place_of)(const ctm__conv *g, int t) {
    CTM__FN(place) at;
    at.x = t % (g->W / 2);
    at.y = t / (g->W / 2) % (g->H / 2);
    at.n = t / (g->W / 2) / (g->H / 2);
    return at;
}
CTM__FUN CTM__INLINE void CTM__FN(place_next)(const ctm__conv *g, CTM__FN(place) *at) {
    if (2 * ++at->x < g->W) return;
    at->x = 0;
    if (2 * ++at->y < g->H) return;
    at->y = 0;
    at->n++;
}
CTM__FUN CTM__INLINE size_t CTM__FN(place_pixel)(const ctm__conv *g, const CTM__FN(place) *at) {   // of its upper left output
    return ((size_t)at->n * (size_t)g->H + (size_t)(2 * at->y)) * (size_t)g->W + (size_t)(2 * at->x);
}
// The 4x4 pixels under a tile, C numbers each; those outside the image are zeros.
CTM__FUN CTM__INLINE void CTM__FN(wino_pixels)(const ctm__conv *g, const ctm_real *x, int C, const CTM__FN(place) *at, const ctm_real **p) {
    const ctm_real *first = x + ((ptrdiff_t)CTM__FN(place_pixel)(g, at) - g->W - 1) * C;
    int a, b;
    for (a = 0; a < 4; a++, first += (ptrdiff_t)g->W * C)
        for (b = 0; b < 4; b++) {
            int inside = (unsigned)(2 * at->y + a - 1) < (unsigned)g->H && (unsigned)(2 * at->x + b - 1) < (unsigned)g->W;
            p[4 * a + b] = inside ? first + b * C : g->zero;
        }
}
// Asks for the 2x2 pixels at a place, channels c0..c0+cn-1 of C.
CTM__FUN CTM__INLINE void CTM__FN(wino_ask)(const ctm__conv *g, const ctm_real *x, int C, const CTM__FN(place) *at, int c0, int cn) {
    const ctm_real *p = x + CTM__FN(place_pixel)(g, at) * (size_t)C + c0;
    ptrdiff_t below = (ptrdiff_t)g->W * C;
    int c;
    for (c = 0; c < cn; c += 64 / (int)sizeof(ctm_real)) {
        CTM__PREFETCH(p + c); CTM__PREFETCH(p + C + c); CTM__PREFETCH(p + below + c); CTM__PREFETCH(p + below + C + c);
    }
}

// One vector of channels of one tile: the 16 pixels under it -> 16 planes of v.
CTM__FUN CTM__INLINE void CTM__FN(wino_input_at)(const ctm_real *const *p, int c, ctm_real *v, size_t plane) {
    V d[16], u[16];
    int k;
    CTM__UNROLL
    for (k = 0; k < 16; k++) d[k] = CTM__LOADU(p[k] + c);
    CTM__FN(wino_input)(d, u);
    CTM__UNROLL
    for (k = 0; k < 16; k++) memcpy(v + (size_t)k * plane, &u[k], sizeof(V));
}
// v[16][tile][channel] for tn tiles from t0 on, channels c0..c0+cn-1 of x.
CTM__FUN void CTM__FN(wino_inputs)(const ctm__conv *g, int t0, int tn, int c0, int cn, ctm_real *v, size_t plane) {
    CTM__FN(place) at = CTM__FN(place_of)(g, t0), ahead = CTM__FN(place_of)(g, t0 + CTM__AHEAD);
    ctm_real part[16][CTM__WIDEST], end[16 * CTM__W];
    const ctm_real *p[16];
    int t, c, k;
    for (t = t0; t < t0 + tn; t++, v += cn) {
        if (t + CTM__AHEAD < g->tiles) CTM__FN(wino_ask)(g, g->x, g->I, &ahead, c0, cn);
        CTM__FN(wino_pixels)(g, g->x, g->I, &at, p);
        for (c = 0; c + CTM__W <= cn; c += CTM__W) CTM__FN(wino_input_at)(p, c0 + c, v + c, plane);
        if (c < cn) {
            for (k = 0; k < 16; k++) p[k] = CTM__FN(part)(part[k], p[k] + c0 + c, (size_t)(cn - c));
            CTM__FN(wino_input_at)(p, 0, end, CTM__W);
            for (k = 0; k < 16; k++) CTM__FN(put)(v + (size_t)k * plane + c, end + k * CTM__W, (size_t)(cn - c));
        }
        CTM__FN(place_next)(g, &at);
        CTM__FN(place_next)(g, &ahead);
    }
}

// y = A^T·m·A for channels from o on of one tile at pixel p, out of the planes m.
CTM__FUN CTM__INLINE void CTM__FN(wino_output_at)(const ctm__conv *g, size_t p, size_t n, int o, const ctm_real *m, size_t plane) {
    V in[16], y[4], bias;
    size_t lanes = (size_t)(g->O - o);
    int k;
    CTM__UNROLL
    for (k = 0; k < 16; k++) in[k] = CTM__LOADU(m + (size_t)k * plane);
    CTM__FN(wino_output)(in, y);
    CTM__FN(bias)(g, n, o, lanes, &bias);
    for (k = 0; k < 4; k++) CTM__FN(finish)(g, p + (size_t)(k / 2 * g->W + k % 2), o, lanes, &bias, &y[k]);
}

// Everything for tn tiles (rows: tn up to a multiple of MR, the spare ones zero): transform in, 16 products for each panel,
// transform out. Planes are 64 bytes longer than their contents, or all 16 would begin at the same place of the cache.
CTM__FUN void CTM__FN(wino_tiles)(const ctm__conv *g, int t0, int tn, ctm_real *scratch) {
    int rows = (tn + CTM__MR - 1) / CTM__MR * CTM__MR, o, nv, t, c, k;
    size_t v_plane = (size_t)rows * (size_t)g->I + 64 / sizeof(ctm_real), m_plane = (size_t)rows * CTM__NV * CTM__W + 64 / sizeof(ctm_real);
    ctm_real *v = scratch, *m = v + 16 * v_plane;
    CTM__FN(place) at;
    if (rows > tn)
        for (k = 0; k < 16; k++)
            memset(v + (size_t)k * v_plane + (size_t)tn * (size_t)g->I, 0, (size_t)((rows - tn) * g->I) * sizeof *v);
    CTM__FN(wino_inputs)(g, t0, tn, 0, g->I, v, v_plane);
    for (o = 0; o < g->O; o += nv * CTM__W) {
        int width;
        nv = CTM__FN(width)((g->O - o + CTM__W - 1) / CTM__W);
        width = nv * CTM__W;
        for (k = 0; k < 16; k++)
            CTM__FN(block)(nv, rows, g->I, v + (size_t)k * v_plane, g->I, 1,
                           g->packed + (size_t)o * (size_t)(16 * g->I) + (size_t)k * (size_t)(g->I * width), width,
                           m + (size_t)k * m_plane, width, ctm__zeros, 0);
        at = CTM__FN(place_of)(g, t0);
        for (t = 0; t < tn; t++, CTM__FN(place_next)(g, &at)) {
            size_t p = CTM__FN(place_pixel)(g, &at);
            const ctm_real *from = m + (size_t)(t * width);
            for (c = 0; c < width && o + c < g->O; c += CTM__W)
                CTM__FN(wino_output_at)(g, p, (size_t)at.n, o + c, from + c, m_plane);
        }
    }
}

// One vector of channels of one tile of dout: its four pixels -> 16 planes of m.
CTM__FUN CTM__INLINE void CTM__FN(wino_doutput_at)(const ctm_real *const *p, int c, ctm_real *m, size_t plane) {
    V d[4], u[16];
    int k;
    CTM__UNROLL
    for (k = 0; k < 4; k++) d[k] = CTM__LOADU(p[k] + c);
    CTM__FN(wino_doutput)(d, u);
    CTM__UNROLL
    for (k = 0; k < 16; k++) memcpy(m + (size_t)k * plane, &u[k], sizeof(V));
}
CTM__FUN void CTM__FN(wino_doutputs)(const ctm__conv *g, int t0, int tn, int o0, int on, ctm_real *m, size_t plane) {
    CTM__FN(place) at = CTM__FN(place_of)(g, t0), ahead = CTM__FN(place_of)(g, t0 + CTM__AHEAD);
    ctm_real part[4][CTM__WIDEST], end[16 * CTM__W];
    const ctm_real *p[4];
    int t, c, k;
    for (t = t0; t < t0 + tn; t++, m += on) {
        if (t + CTM__AHEAD < g->tiles) CTM__FN(wino_ask)(g, g->dout, g->O, &ahead, o0, on);
        for (k = 0; k < 4; k++) p[k] = g->dout + (CTM__FN(place_pixel)(g, &at) + (size_t)(k / 2 * g->W + k % 2)) * (size_t)g->O + o0;
        for (c = 0; c + CTM__W <= on; c += CTM__W) CTM__FN(wino_doutput_at)(p, c, m + c, plane);
        if (c < on) {
            for (k = 0; k < 4; k++) p[k] = CTM__FN(part)(part[k], p[k] + c, (size_t)(on - c));
            CTM__FN(wino_doutput_at)(p, 0, end, CTM__W);
            for (k = 0; k < 16; k++) CTM__FN(put)(m + (size_t)k * plane + c, end + k * CTM__W, (size_t)(on - c));
        }
        CTM__FN(place_next)(g, &at);
        CTM__FN(place_next)(g, &ahead);
    }
}
// du[16][i][o] of a block of channels from i0 and o0 on, over tiles t0..t1-1: V transposed (through a_row and a_step) times dM.
CTM__FUN void CTM__FN(wino_weights)(const ctm__conv *g, int i0, int o0, int t0, int t1, ctm_real *du, ctm_real *scratch) {
    int in = ctm__imin(CTM__WBLOCK, g->I - i0), on = ctm__imin(CTM__WBLOCK, g->O - o0), t, k;
    size_t v_plane = (size_t)(CTM__WTILES * in) + 64 / sizeof(ctm_real), m_plane = (size_t)(CTM__WTILES * on) + 64 / sizeof(ctm_real);
    ctm_real *v = scratch, *m = v + 16 * v_plane;
    if (t0 >= t1) memset(du, 0, (size_t)(16 * in * on) * sizeof *du);
    for (t = t0; t < t1; t += CTM__WTILES) {
        int tn = ctm__imin(CTM__WTILES, t1 - t);
        CTM__FN(wino_inputs)(g, t, tn, i0, in, v, v_plane);
        CTM__FN(wino_doutputs)(g, t, tn, o0, on, m, m_plane);
        for (k = 0; k < 16; k++)
            CTM__FN(gemm)(in, on, tn, v + (size_t)k * v_plane, 1, in, m + (size_t)k * m_plane, on,
                          du + (size_t)(k * in * on), on, NULL, t > t0);
    }
}

// dw += alpha·G^T·du·G for rows row0..row1-1 of a block, du being the sum of `parts` parts, in their order.
CTM__FUN void CTM__FN(wino_weights_end)(const ctm__conv *g, int i0, int o0, int row0, int row1, int parts,
                                        const ctm_real *du, size_t part) {
    int in = ctm__imin(CTM__WBLOCK, g->I - i0), on = ctm__imin(CTM__WBLOCK, g->O - o0), i, c, k, s;
    for (i = row0; i < ctm__imin(row1, in); i++)
        for (c = 0; c < on; c += CTM__W) {
            V u[16], f[9], e;
            size_t lanes = (size_t)(on - c);
            for (k = 0; k < 16; k++) {
                const ctm_real *from = du + (size_t)((k * in + i) * on + c);
                CTM__FN(load)(&u[k], from, lanes);
                for (s = 1; s < parts; s++) { CTM__FN(load)(&e, from + (size_t)s * part, lanes); u[k] += e; }
            }
            CTM__FN(wino_dfilter)(u, f);
            for (k = 0; k < 9; k++) {
                ctm_real *to = g->dw + ((size_t)k * (size_t)g->I + (size_t)(i0 + i)) * (size_t)g->O + o0 + c;
                CTM__FN(load)(&e, to, lanes);
                e += g->alpha * f[k];
                CTM__FN(store)(to, &e, lanes);
            }
        }
}
#endif

// exp, log, sin, cos of W numbers. Each is brought into a small interval where its Taylor series is short; the double
// build asks libm, lane by lane, as it has only one.
#ifdef CTM_REAL_DOUBLE
CTM__FUN CTM__INLINE void CTM__FN(vexp)(const V *x, V *y)  { *y = exp(*x); }
CTM__FUN CTM__INLINE void CTM__FN(vlog)(const V *x, V *y)  { *y = log(*x); }
CTM__FUN CTM__INLINE void CTM__FN(vsqrt)(const V *x, V *y) { *y = sqrt(*x); }
CTM__FUN CTM__INLINE void CTM__FN(vsincos)(const V *x, V *s, V *c) { *s = sin(*x); *c = cos(*x); }
#else
// exp(x) = 2^k · exp(r), |r| <= ln(2)/2. Clamped to [-87, 88], where float neither vanishes nor overflows.
CTM__FUN CTM__INLINE void CTM__FN(vexp)(const V *in, V *out) {
    V x = *in, lo, hi, k, r, p;
    VI n;
    CTM__FN(splat)(&lo, -87.0f);
    CTM__FN(splat)(&hi, 88.0f);
    x = CTM__SELECT(x < lo, lo, x);
    x = CTM__SELECT(x > hi, hi, x);
    n = CTM__TO_INT(CTM__MADD(1.44269504f, x, 127.5f));      // k + 127, and truncation rounds as it is positive
    k = CTM__TO_REAL(n) - 127.0f;
    r = CTM__MADD(-0.693359375f, k, x);                      // ln 2 in two parts: the first has few bits, so k times it is exact
    r = CTM__MADD(2.12194440e-4f, k, r);
    p = CTM__MADD(1.0f / 5040, r, 1.0f / 720);
    p = CTM__MADD(p, r, 1.0f / 120);
    p = CTM__MADD(p, r, 1.0f / 24);
    p = CTM__MADD(p, r, 1.0f / 6);
    p = CTM__MADD(p, r, 0.5f);
    p = CTM__MADD(p, r, 1.0f);
    p = CTM__MADD(p, r, 1.0f);
    *out = p * CTM__FROM_BITS(n << 23);
}
// log(x) = e·ln 2 + log m with m in [sqrt(1/2), sqrt(2)); with y = (m-1)/(m+1), log m = 2(y + y³/3 + y⁵/5 + ...).
CTM__FUN CTM__INLINE void CTM__FN(vlog)(const V *in, V *out) {
    VI bits = CTM__BITS(*in), e = (bits - 0x3f3504f3) >> 23;
    V m = CTM__FROM_BITS(((bits - 0x3f3504f3) & 0x7fffff) + 0x3f3504f3), y = (m - 1.0f) / (m + 1.0f), z = y * y, p;
    p = CTM__MADD(1.0f / 9, z, 1.0f / 7);
    p = CTM__MADD(p, z, 1.0f / 5);
    p = CTM__MADD(p, z, 1.0f / 3);
    p = p * z * y;
    *out = 2.0f * (p + y) + CTM__TO_REAL(e) * 0.69314718f;
}
// sqrt(x) = x · x^(-1/2); halving the exponent bits guesses x^(-1/2) to 3 %, and three Newton steps square that error each.
CTM__FUN CTM__INLINE void CTM__FN(vsqrt)(const V *in, V *out) {
    V x = *in, h = x * 0.5f, y = CTM__FROM_BITS(0x5f3759df - (CTM__BITS(x) >> 1));
    y = y * CTM__MADD(-h * y, y, 1.5f);
    y = y * CTM__MADD(-h * y, y, 1.5f);
    y = y * CTM__MADD(-h * y, y, 1.5f);
    *out = x * y;
}
// x = k·pi/2 + r, |r| <= pi/4 (pi/2 in three parts); k mod 4 says which of sin r, cos r to take with which sign.
CTM__FUN CTM__INLINE void CTM__FN(vsincos)(const V *in, V *sine, V *cosine) {
    V x = *in, y = x * 0.636619772f, half, zero, k, r, z, s, c;
    VI n;
    CTM__FN(splat)(&half, 0.5f);
    CTM__FN(splat)(&zero, 0.0f);
    n = CTM__TO_INT(y + CTM__SELECT(y < zero, -half, half));
    k = CTM__TO_REAL(n);
    r = CTM__MADD(-1.5703125f, k, x);
    r = CTM__MADD(-4.83751297e-4f, k, r);
    r = CTM__MADD(-7.54978995e-8f, k, r);
    z = r * r;
    s = CTM__MADD(1.0f / 362880, z, -1.0f / 5040);
    s = CTM__MADD(s, z, 1.0f / 120);
    s = CTM__MADD(s, z, -1.0f / 6);
    s = CTM__MADD(s * z, r, r);
    c = CTM__MADD(-1.0f / 3628800, z, 1.0f / 40320);
    c = CTM__MADD(c, z, -1.0f / 720);
    c = CTM__MADD(c, z, 1.0f / 24);
    c = CTM__MADD(c, z, -0.5f);
    c = CTM__MADD(c, z, 1.0f);
    *sine   = CTM__SELECT(-(n & 1), c, s);
    *cosine = CTM__SELECT(-(n & 1), s, c);
    *sine   = CTM__SELECT(-((n >> 1) & 1), -*sine, *sine);
    *cosine = CTM__SELECT(-(((n + 1) >> 1) & 1), -*cosine, *cosine);
}
#endif

CTM__FUN void CTM__FN(exp_rows)(size_t n, const ctm_real *x, ctm_real *y) {
    size_t i;
    ctm_real part[CTM__WIDEST];
    V v, e;
    for (i = 0; i + CTM__W <= n; i += CTM__W) {
        CTM__FN(load)(&v, x + i, CTM__W);
        CTM__FN(vexp)(&v, &e);
        CTM__FN(store)(y + i, &e, CTM__W);
    }
    if (CTM__W > 1 && i < n) { CTM__FN(exp_rows)(CTM__W, CTM__FN(part)(part, x + i, n - i), part); CTM__FN(put)(y + i, part, n - i); }
}
CTM__FUN void CTM__FN(log_rows)(size_t n, const ctm_real *x, ctm_real *y) {
    size_t i;
    V v, e;
    for (i = 0; i < n; i += CTM__W) {
        CTM__FN(load)(&v, x + i, n - i);
        CTM__FN(vlog)(&v, &e);
        CTM__FN(store)(y + i, &e, n - i);
    }
}
CTM__FUN void CTM__FN(sincos_rows)(size_t n, const ctm_real *x, ctm_real *s, ctm_real *c) {
    size_t i;
    V v, a, b;
    for (i = 0; i < n; i += CTM__W) {
        CTM__FN(load)(&v, x + i, n - i);
        CTM__FN(vsincos)(&v, &a, &b);
        CTM__FN(store)(s + i, &a, n - i);
        CTM__FN(store)(c + i, &b, n - i);
    }
}

// sigmoid(x) = 1/(1 + exp(-x))
CTM__FUN CTM__INLINE void CTM__FN(vsigmoid)(const V *x, V *sig) {
    V minus = -*x, e;
    CTM__FN(vexp)(&minus, &e);
    *sig = (ctm_real)1 / ((ctm_real)1 + e);
}
// out = x·sigmoid(x); sig (if not NULL) is kept for the backward pass.
CTM__FUN void CTM__FN(silu)(size_t n, const ctm_real *x, ctm_real *out, ctm_real *sig) {
    size_t i;
    ctm_real part[CTM__WIDEST], kept[CTM__WIDEST];
    V v, g;
    for (i = 0; i + CTM__W <= n; i += CTM__W) {
        CTM__FN(load)(&v, x + i, CTM__W);
        CTM__FN(vsigmoid)(&v, &g);
        v = v * g;
        CTM__FN(store)(out + i, &v, CTM__W);
        if (sig) CTM__FN(store)(sig + i, &g, CTM__W);
    }
    if (CTM__W == 1 || i == n) return;
    CTM__FN(silu)(CTM__W, CTM__FN(part)(part, x + i, n - i), part, kept);
    CTM__FN(put)(out + i, part, n - i);
    if (sig) CTM__FN(put)(sig + i, kept, n - i);
}
// d silu/dx = sig + x·sig·(1 - sig) = sig + out·(1 - sig)
CTM__FUN void CTM__FN(silu_backward)(size_t n, const ctm_real *sig, const ctm_real *out, const ctm_real *dout, ctm_real *dx) {
    size_t i;
    V g, y, d, a;
    for (i = 0; i < n; i += CTM__W) {
        CTM__FN(load)(&g, sig + i, n - i);
        CTM__FN(load)(&y, out + i, n - i);
        CTM__FN(load)(&d, dout + i, n - i);
        CTM__FN(load)(&a, dx + i, n - i);
        a = CTM__MADD(CTM__MADD((ctm_real)1 - g, y, g), d, a);
        CTM__FN(store)(dx + i, &a, n - i);
    }
}
// out = silu(v), v = (1 + scale)·h + shift
CTM__FUN void CTM__FN(film)(size_t n, const ctm_real *h, const ctm_real *scale, const ctm_real *shift, ctm_real *out, ctm_real *sig) {
    size_t i;
    V a, b, c, v, g;
    for (i = 0; i < n; i += CTM__W) {
        CTM__FN(load)(&a, h + i, n - i);
        CTM__FN(load)(&b, scale + i, n - i);
        CTM__FN(load)(&c, shift + i, n - i);
        v = CTM__MADD(b, a, a) + c;
        CTM__FN(vsigmoid)(&v, &g);
        v = v * g;
        CTM__FN(store)(out + i, &v, n - i);
        if (sig) CTM__FN(store)(sig + i, &g, n - i);
    }
}
// dv = dout·(sig + out·(1 - sig));  dh += (1 + scale)·dv;  dscale += h·dv;  dshift += dv
CTM__FUN void CTM__FN(film_backward)(size_t n, const ctm_real *h, const ctm_real *scale, const ctm_real *out, const ctm_real *sig,
                                     const ctm_real *dout, ctm_real *dh, ctm_real *dscale, ctm_real *dshift) {
    size_t i;
    V a, b, y, g, d, sum;
    for (i = 0; i < n; i += CTM__W) {
        CTM__FN(load)(&a, h + i, n - i);
        CTM__FN(load)(&b, scale + i, n - i);
        CTM__FN(load)(&y, out + i, n - i);
        CTM__FN(load)(&g, sig + i, n - i);
        CTM__FN(load)(&d, dout + i, n - i);
        d = d * (g + y * ((ctm_real)1 - g));
        if (dh) {
            CTM__FN(load)(&sum, dh + i, n - i);
            sum = sum + d + b * d;
            CTM__FN(store)(dh + i, &sum, n - i);
        }
        if (dscale) {
            CTM__FN(load)(&sum, dscale + i, n - i);
            sum = sum + a * d;
            CTM__FN(store)(dscale + i, &sum, n - i);
            CTM__FN(load)(&sum, dshift + i, n - i);
            sum = sum + d;
            CTM__FN(store)(dshift + i, &sum, n - i);
        }
    }
}
// m <- b1·m + (1-b1)·g;  v <- b2·v + (1-b2)·g²;  theta <- theta - rate·m / (root·sqrt(v) + eps), or rate·m if not adaptive
CTM__FUN void CTM__FN(adam)(size_t n, ctm_real *theta, const ctm_real *grad, ctm_real *mean, ctm_real *var, double beta1,
                            double beta2, double rate_, double root_, double eps_, int adaptive) {
    ctm_real b1 = (ctm_real)beta1, b2 = (ctm_real)beta2, a1 = (ctm_real)(1 - beta1), a2 = (ctm_real)(1 - beta2);
    ctm_real rate = (ctm_real)rate_, root = (ctm_real)root_, eps = (ctm_real)eps_;
    size_t i;
    V w, g, m, v, s;
    for (i = 0; i < n; i += CTM__W) {
        CTM__FN(load)(&w, theta + i, n - i);
        CTM__FN(load)(&g, grad + i, n - i);
        CTM__FN(load)(&m, mean + i, n - i);
        CTM__FN(load)(&v, var + i, n - i);
        m = CTM__MADD(b1, m, a1 * g);
        v = CTM__MADD(b2, v, a2 * (g * g));
        if (adaptive) {
            CTM__FN(vsqrt)(&v, &s);
            w = w - rate * m / CTM__MADD(root, s, eps);
        } else {
            w = w - rate * m;
        }
        CTM__FN(store)(theta + i, &w, n - i);
        CTM__FN(store)(mean + i, &m, n - i);
        CTM__FN(store)(var + i, &v, n - i);
    }
}
CTM__FUN void CTM__FN(ema)(size_t n, ctm_real *ema, const ctm_real *theta, double rate_) {
    ctm_real rate = (ctm_real)rate_, rest = (ctm_real)(1 - rate_);
    size_t i;
    V e, w;
    for (i = 0; i < n; i += CTM__W) {
        CTM__FN(load)(&e, ema + i, n - i);
        CTM__FN(load)(&w, theta + i, n - i);
        e = rate * e + rest * w;
        CTM__FN(store)(ema + i, &e, n - i);
    }
}
// y <- y + c·x
CTM__FUN void CTM__FN(axpy)(size_t n, double c_, const ctm_real *x, ctm_real *y) {
    ctm_real c = (ctm_real)c_;
    size_t i;
    V a, b;
    for (i = 0; i < n; i += CTM__W) {
        CTM__FN(load)(&a, x + i, n - i);
        CTM__FN(load)(&b, y + i, n - i);
        b = CTM__MADD(c, a, b);
        CTM__FN(store)(y + i, &b, n - i);
    }
}
// sum of squares, one partial sum for each lane
CTM__FUN double CTM__FN(sumsq)(size_t n, const ctm_real *x) {
    ctm_real lane[CTM__W];
    double total = 0;
    size_t i;
    V a, sum;
    CTM__FN(splat)(&sum, 0);
    for (i = 0; i < n; i += CTM__W) {
        CTM__FN(load)(&a, x + i, n - i);
        sum = sum + a * a;
    }
    memcpy(lane, &sum, sizeof lane);
    for (i = 0; i < CTM__W; i++) total += (double)lane[i];
    return total;
}

#ifndef CTM_NO_IMAGES
// ---- norms, attention, resampling: P pixels of C channels, swept in the order of memory
// A sweep does `at` for m lanes: the constant W, and then what W does not divide. In most of it yes, too, is a constant.
#define CTM__WHOLE(at) for (p = 0; p < P; p++) for (c = 0; c + CTM__W <= C; c += CTM__W) { const size_t m = CTM__W; at; }
#define CTM__SWEEP(flag, at)                                                                                      \
    if (flag) { const int yes = 1; CTM__WHOLE(at) } else { const int yes = 0; CTM__WHOLE(at) }                    \
    for (p = 0, c = C / CTM__W * CTM__W; c < C && p < P; p++) { const int yes = (flag); const size_t m = C - c; at; }
// sum[c] += x - from[c];  sumsq[c] += (x - from[c])².  Without sumsq: sum[c] += x.
CTM__FUN CTM__INLINE void CTM__FN(sums_at)(size_t m, const ctm_real *x, const ctm_real *from, ctm_real *sum, ctm_real *sumsq) {
    V v, s;
    CTM__FN(load)(&v, x, m);
    if (sumsq) {
        CTM__FN(load)(&s, from, m);
        v -= s;
        CTM__FN(load)(&s, sumsq, m);
        s += v * v;
        CTM__FN(store)(sumsq, &s, m);
    }
    CTM__FN(load)(&s, sum, m);
    s += v;
    CTM__FN(store)(sum, &s, m);
}
CTM__FUN void CTM__FN(channel_sums)(size_t P, size_t C, const ctm_real *x, const ctm_real *from, ctm_real *sum, ctm_real *sumsq) {
    size_t p, c;
    CTM__SWEEP(sumsq != NULL, CTM__FN(sums_at)(m, x + p * C + c, yes ? from + c : NULL, sum + c, yes ? sumsq + c : NULL))
}
// out = f((x - mean[c])·a[c] + beta[c]),  f the identity or SiLU
CTM__FUN CTM__INLINE void CTM__FN(norm_at)(size_t m, const ctm_real *x, const ctm_real *mean, const ctm_real *a, const ctm_real *beta,
                                           int silu, ctm_real *out) {
    V v, e, g;
    CTM__FN(load)(&v, x, m);
    CTM__FN(load)(&e, mean, m);
    v -= e;
    CTM__FN(load)(&e, a, m);
    CTM__FN(load)(&g, beta, m);
    v = CTM__MADD(v, e, g);
    if (silu) { CTM__FN(vsigmoid)(&v, &g); v *= g; }
    CTM__FN(store)(out, &v, m);
}
CTM__FUN void CTM__FN(norm)(size_t P, size_t C, const ctm_real *x, const ctm_real *mean, const ctm_real *a, const ctm_real *beta,
                            int silu, ctm_real *out) {
    size_t p, c;
    CTM__SWEEP(silu, CTM__FN(norm_at)(m, x + p * C + c, mean + c, a + c, beta + c, yes, out + p * C + c))
}
// dv = dout·f'(v), with v made anew from x: cheaper than a third array in memory. centred = x - mean.
CTM__FUN CTM__INLINE void CTM__FN(norm_dv)(size_t m, const ctm_real *x, const ctm_real *dout, const ctm_real *mean, const ctm_real *a,
                                           const ctm_real *beta, int silu, V *centred, V *dv) {
    V v, e, g;
    CTM__FN(load)(&v, x, m);
    CTM__FN(load)(&e, mean, m);
    *centred = v - e;
    CTM__FN(load)(dv, dout, m);
    if (!silu) return;
    CTM__FN(load)(&e, a, m);
    CTM__FN(load)(&g, beta, m);
    v = CTM__MADD(*centred, e, g);
    CTM__FN(vsigmoid)(&v, &g);
    *dv *= CTM__MADD((ctm_real)1 - g, v * g, g);
}
// s1[c] += dv;  s2[c] += dv·(x - mean[c])
CTM__FUN CTM__INLINE void CTM__FN(norm_sums_at)(size_t m, const ctm_real *x, const ctm_real *dout, const ctm_real *mean,
                                                const ctm_real *a, const ctm_real *beta, int silu, ctm_real *s1, ctm_real *s2) {
    V v, e, d;
    CTM__FN(norm_dv)(m, x, dout, mean, a, beta, silu, &v, &d);
    CTM__FN(load)(&e, s1, m);
    e += d;
    CTM__FN(store)(s1, &e, m);
    CTM__FN(load)(&e, s2, m);
    e = CTM__MADD(d, v, e);
    CTM__FN(store)(s2, &e, m);
}
CTM__FUN void CTM__FN(norm_sums)(size_t P, size_t C, const ctm_real *x, const ctm_real *dout, const ctm_real *mean, const ctm_real *a,
                                 const ctm_real *beta, int silu, ctm_real *s1, ctm_real *s2) {
    size_t p, c;
    CTM__SWEEP(silu, CTM__FN(norm_sums_at)(m, x + p * C + c, dout + p * C + c, mean + c, a + c, beta + c, yes, s1 + c, s2 + c))
}
// dx = a[c]·dv - k1[c] - k2[c]·(x - mean[c]), set or added
CTM__FUN CTM__INLINE void CTM__FN(norm_backward_at)(size_t m, const ctm_real *x, const ctm_real *dout, const ctm_real *mean,
                                                    const ctm_real *a, const ctm_real *beta, int silu, const ctm_real *k1,
                                                    const ctm_real *k2, ctm_real *dx, int add) {
    V v, e, d;
    CTM__FN(norm_dv)(m, x, dout, mean, a, beta, silu, &v, &d);
    CTM__FN(load)(&e, a, m);
    d *= e;
    CTM__FN(load)(&e, k1, m);
    d -= e;
    CTM__FN(load)(&e, k2, m);
    d = CTM__MADD(-e, v, d);
    if (add) { CTM__FN(load)(&e, dx, m); d += e; }
    CTM__FN(store)(dx, &d, m);
}
CTM__FUN void CTM__FN(norm_backward)(size_t P, size_t C, const ctm_real *x, const ctm_real *dout, const ctm_real *mean, const ctm_real *a,
                                     const ctm_real *beta, int silu, const ctm_real *k1, const ctm_real *k2, ctm_real *dx, int add) {
    size_t p, c;
    CTM__SWEEP(silu, CTM__FN(norm_backward_at)(m, x + p * C + c, dout + p * C + c, mean + c, a + c, beta + c, yes, k1 + c, k2 + c,
                                               dx + p * C + c, add))
}
#undef CTM__WHOLE
#undef CTM__SWEEP
// row <- exp(scale·row - top) / sum;  spare lanes of the last vector do not count.
CTM__FUN void CTM__FN(softmax)(int n_, double scale_, ctm_real *row) {
    ctm_real scale = (ctm_real)scale_, top = row[0] * scale, lane[CTM__W], total = 0;
    size_t i, n = (size_t)n_;
    V v, e, sum;
    for (i = 1; i < n; i++) if (row[i] * scale > top) top = row[i] * scale;
    memset(&sum, 0, sizeof sum);
    for (i = 0; i < n; i += CTM__W) {
        CTM__FN(load)(&v, row + i, n - i);
        v = CTM__MADD(scale, v, -top);
        CTM__FN(vexp)(&v, &e);
        CTM__FN(store)(row + i, &e, n - i);
        if (n - i < CTM__W) CTM__FN(load)(&e, row + i, n - i);
        sum += e;
    }
    memcpy(lane, &sum, sizeof lane);
    for (i = 0; i < CTM__W; i++) total += lane[i];
    CTM__FN(splat)(&sum, (ctm_real)1 / total);
    for (i = 0; i < n; i += CTM__W) {
        CTM__FN(load)(&v, row + i, n - i);
        v *= sum;
        CTM__FN(store)(row + i, &v, n - i);
    }
}
// With p = softmax(scale·z):  dz = scale·p·(dp - sum(p·dp)), in the place of dp.
CTM__FUN void CTM__FN(softmax_backward)(int n_, double scale_, const ctm_real *p, ctm_real *dp) {
    ctm_real lane[CTM__W], total = 0, scale = (ctm_real)scale_;
    size_t i, n = (size_t)n_;
    V v, e, sum;
    memset(&sum, 0, sizeof sum);
    for (i = 0; i < n; i += CTM__W) {
        CTM__FN(load)(&v, p + i, n - i);
        CTM__FN(load)(&e, dp + i, n - i);
        sum += v * e;
    }
    memcpy(lane, &sum, sizeof lane);
    for (i = 0; i < CTM__W; i++) total += lane[i];
    for (i = 0; i < n; i += CTM__W) {
        CTM__FN(load)(&v, p + i, n - i);
        CTM__FN(load)(&e, dp + i, n - i);
        e = v * (e - total) * scale;
        CTM__FN(store)(dp + i, &e, n - i);
    }
}
#endif
// y = c·x, set or added
CTM__FUN void CTM__FN(scaled)(size_t n, double c_, const ctm_real *x, ctm_real *y, int add) {
    ctm_real c = (ctm_real)c_;
    size_t i;
    V v, e;
    for (i = 0; i < n; i += CTM__W) {
        CTM__FN(load)(&v, x + i, n - i);
        v *= c;
        if (add) { CTM__FN(load)(&e, y + i, n - i); v += e; }
        CTM__FN(store)(y + i, &v, n - i);
    }
}
// y = c·(p + q + r + s), set or added
#ifndef CTM_NO_IMAGES
CTM__FUN void CTM__FN(four)(size_t n, double c_, const ctm_real *p, const ctm_real *q, const ctm_real *r,
                            const ctm_real *s, ctm_real *y, int add) {
    ctm_real c = (ctm_real)c_;
    size_t i;
    V v, e;
    for (i = 0; i < n; i += CTM__W) {
        CTM__FN(load)(&v, p + i, n - i);
        CTM__FN(load)(&e, q + i, n - i);
        v += e;
        CTM__FN(load)(&e, r + i, n - i);
        v += e;
        CTM__FN(load)(&e, s + i, n - i);
        v = (v + e) * c;
        if (add) { CTM__FN(load)(&e, y + i, n - i); v += e; }
        CTM__FN(store)(y + i, &v, n - i);
    }
}
#endif

// The exact denoiser of a Gaussian mixture (chapter 11), W points at a time, one in each lane. scratch: (2·dim + K)·W numbers.
CTM__FUN void CTM__FN(mixture)(int n, int dim, int K, const ctm_real *mean, const ctm_real *log_w, double c2_, const ctm_real *x,
                               const ctm_real *t, ctm_real *D, ctm_real *scratch) {
    ctm_real c2 = (ctm_real)c2_;
    ctm_real *xs = scratch, *acc = xs + dim * CTM__W, *logit = acc + dim * CTM__W;
    int i, k, d, l;
    for (i = 0; i < n; i += CTM__W) {
        int m = ctm__imin(CTM__W, n - i);
        V v, half, top, sum, a, q, e;
        for (l = 0; l < CTM__W; l++) acc[l] = t[i + (l < m ? l : 0)];            // spare lanes repeat the first point
        v = CTM__LOADU(acc);
        v = v * v + c2;                                          // variance of each component at noise level t
        half = (ctm_real)-0.5 / v;
        for (d = 0; d < dim; d++)
            for (l = 0; l < CTM__W; l++) xs[d * CTM__W + l] = x[(i + (l < m ? l : 0)) * dim + d];
        memset(&top, 0, sizeof top);
        for (k = 0; k < K; k++) {                                // log of weight times density, up to a common term
            memset(&q, 0, sizeof q);
            for (d = 0; d < dim; d++) { a = CTM__LOADU(xs + d * CTM__W) - mean[k * dim + d]; q = CTM__MADD(a, a, q); }
            q = CTM__MADD(q, half, log_w[k]);
            top = k == 0 ? q : CTM__SELECT(top < q, q, top);
            memcpy(logit + k * CTM__W, &q, sizeof q);
        }
        memset(&sum, 0, sizeof sum);
        memset(acc, 0, sizeof(V) * (size_t)dim);
        for (k = 0; k < K; k++) {                                // softmax, and the mean of the means under it
            a = CTM__LOADU(logit + k * CTM__W) - top;
            CTM__FN(vexp)(&a, &e);
            sum = sum + e;
            for (d = 0; d < dim; d++) {
                q = CTM__MADD(mean[k * dim + d], e, CTM__LOADU(acc + d * CTM__W));
                memcpy(acc + d * CTM__W, &q, sizeof q);
            }
        }
        a = c2 / v;
        for (d = 0; d < dim; d++) {
            q = a * CTM__LOADU(xs + d * CTM__W) + ((ctm_real)1 - a) * CTM__LOADU(acc + d * CTM__W) / sum;
            for (l = 0; l < m; l++) memcpy(D + (i + l) * dim + d, (ctm_real *)&q + l, sizeof *D);
        }
    }
}

static const ctm__kernels CTM__FN(kernels) = {
    CTM__W, CTM__NV * CTM__W, CTM__FN(panel_at), CTM__FN(gemm), CTM__FN(exp_rows), CTM__FN(log_rows), CTM__FN(sincos_rows),
    CTM__FN(silu), CTM__FN(silu_backward),
    CTM__FN(film), CTM__FN(film_backward), CTM__FN(adam), CTM__FN(ema), CTM__FN(axpy), CTM__FN(sumsq), CTM__FN(mixture), CTM__FN(scaled),
#ifndef CTM_NO_IMAGES
    CTM__FN(pack), CTM__FN(conv_panel), CTM__FN(conv_weights), CTM__FN(wino_filters), CTM__FN(wino_tiles), CTM__FN(wino_weights),
    CTM__FN(wino_weights_end),
    CTM__FN(channel_sums), CTM__FN(norm), CTM__FN(norm_sums), CTM__FN(norm_backward), CTM__FN(softmax), CTM__FN(softmax_backward),
    CTM__FN(four)
#endif
};
#undef V
#undef VI
#undef CTM__FUN
#undef CTM__LOADU
#undef CTM__TO_INT
#undef CTM__TO_REAL
#undef CTM__BITS
#undef CTM__FROM_BITS
#undef CTM__SELECT
#undef CTM__SUFFIX
#undef CTM__W
#undef CTM__MR
#undef CTM__NV
#undef CTM__TARGET
#undef CTM__FUSED
#undef CTM__ZERO
#undef CTM__MADD
// ---- END OF PASS ----------------------------------------------------------------------------------------------------
#endif

#if defined(CTM_IMPLEMENTATION) && !defined(CTM__PASS) && !defined(CTM__CHAPTER_22)
#define CTM__CHAPTER_22

static const ctm__kernels *ctm__kernels_of(int isa) {
    switch (isa) {
    case CTM_ISA_PORTABLE: return &ctm__kernels_portable;
#ifdef CTM__HAS_V128
    case CTM_ISA_V128: return &ctm__kernels_v128;
#endif
#if defined(CTM__X86) && defined(CTM__VECTORS)
    case CTM_ISA_AVX2:   return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &ctm__kernels_avx2 : NULL;
    case CTM_ISA_AVX512: return __builtin_cpu_supports("avx512f") ? &ctm__kernels_avx512 : NULL;
#endif
    default: return NULL;
    }
}

CTM__DEF const char *ctm_isa_name(int isa) {
    static const char *const name[] = {"portable", "v128", "avx2", "avx512"};
    return isa >= 0 && isa < CTM_ISA_COUNT ? name[isa] : "unknown";
}

CTM__DEF int ctm_set_isa(ctm_ctx *ctx, int isa) {
    const ctm__kernels *k = ctm__kernels_of(isa);
    if (!k) return ctm__fail(ctx, "instruction set \"%s\" is not available here", ctm_isa_name(isa));
    ctx->kernels = k;
    ctx->isa = isa;
    return 1;
}

CTM__DEF void ctm_init(ctm_ctx *ctx) {
    int isa;
    memset(ctx, 0, sizeof *ctx);
    for (isa = CTM_ISA_COUNT - 1; !ctm_set_isa(ctx, isa); isa--) { }
    ctx->error[0] = 0;
    ctx->winograd = 1;
    ctx->team = ctx->most_pieces = 1;
}

// Products are cut into blocks for the threads. Every entry of C is one sum over k in order, wherever the cuts are (a float
// survives a stay in memory), so cutting never changes a bit.
typedef struct ctm__gemm_job {
    ctm_ctx *ctx;
    int M, N, K, m, n, add;
    const ctm_real *A, *B, *bias;
    ptrdiff_t a_row, a_step, b_step, c_row;
    ctm_real *C;
} ctm__gemm_job;

static void ctm__gemm_piece(void *arg, int p) {
    const ctm__gemm_job *g = (const ctm__gemm_job *)arg;
    int across = (g->N + g->n - 1) / g->n, i = p / across * g->m, j = p % across * g->n;
    g->ctx->kernels->gemm(ctm__imin(g->m, g->M - i), ctm__imin(g->n, g->N - j), g->K, g->A + i * g->a_row, g->a_row, g->a_step,
                          g->B + j, g->b_step, g->C + i * g->c_row + j, g->c_row, g->bias ? g->bias + j : NULL, g->add);
}

// Step 5 of the story: a block of B is copied into panels, [panel][k][column], and serves all rows of this piece of C; blocks of A's rows
// are copied next to it, and serve all its columns. The copies are each thread's own, and no part of its stack: some stacks have 128 KB.
enum { CTM__DEPTH = 256, CTM__ACROSS = 768, CTM__DOWN = 96 };
static void ctm__gemm_packed(void *arg, int p, void *scratch) {
    const ctm__gemm_job *g = (const ctm__gemm_job *)arg;
    const ctm__kernels *kernels = g->ctx->kernels;
    int down = (g->M + g->m - 1) / g->m, j0 = p / down * g->n, i0 = p % down * g->m, n = ctm__imin(g->n, g->N - j0),
        i1 = ctm__imin(g->M, i0 + g->m), by_rows = g->a_step == 1, k0, k, i, j, r;
    ctm_real *a = (ctm_real *)scratch, *b = a + CTM__DOWN * CTM__DEPTH;
    for (k0 = 0; k0 < g->K; k0 += CTM__DEPTH) {
        int depth = ctm__imin(CTM__DEPTH, g->K - k0);
        for (j = 0; j < n; j += kernels->panel) {
            int width = ctm__imin(kernels->panel, n - j);
            for (k = 0; k < depth; k++)
                memcpy(b + j * depth + k * width, g->B + (k0 + k) * g->b_step + j0 + j, (size_t)width * sizeof *b);
        }
        for (i = i0; i < i1; i += CTM__DOWN) {
            int m = ctm__imin(CTM__DOWN, i1 - i);
            const ctm_real *from = g->A + i * g->a_row + k0 * g->a_step;
            if (by_rows) for (r = 0; r < m; r++) memcpy(a + r * depth, from + r * g->a_row, (size_t)depth * sizeof *a);
            else for (k = 0; k < depth; k++) for (r = 0; r < m; r++) a[k * m + r] = from[r * g->a_row + k * g->a_step];
            for (j = 0; j < n; j += kernels->panel) {
                int width = ctm__imin(kernels->panel, n - j);
                kernels->gemm(m, width, depth, a, by_rows ? depth : 1, by_rows ? 1 : m, b + j * depth, width, g->C + i * g->c_row + j0 + j,
                              g->c_row, k0 == 0 && g->bias ? g->bias + j0 + j : NULL, g->add || k0 > 0);
            }
        }
    }
}

// Pieces as large as the caches allow, but at least one for each thread if that leaves 64 columns and 128 rows: how many there are. (No
// other loop is cut by the number of threads; here no cut changes a bit.)
static int ctm__gemm_cut(ctm__gemm_job *g, int threads, int panel) {
    int across = (g->N + CTM__ACROSS * threads - 1) / (CTM__ACROSS * threads) * threads;
    g->n = (g->N + across - 1) / across;
    if (g->n < 64) g->n = 64;
    g->n = (g->n + panel - 1) / panel * panel;
    across = (g->N + g->n - 1) / g->n;
    for (g->m = 1024; g->m > 128 && (g->M + g->m - 1) / g->m * across < threads; ) g->m /= 2;
    return (g->M + g->m - 1) / g->m * across;
}

CTM__DEF void ctm_gemm(ctm_ctx *ctx, int M, int N, int K, const ctm_real *A, ptrdiff_t a_row, ptrdiff_t a_step,
                       const ctm_real *B, ptrdiff_t b_step, ctm_real *C, ptrdiff_t c_row, const ctm_real *bias, int add) {
    ctm__gemm_job g;
    int packed = M >= 256 && N >= 256 && K >= 256;
    if (M <= 0 || N <= 0) return;
    if ((double)M * N * K < 5e5) {
        ctx->kernels->gemm(M, N, K, A, a_row, a_step, B, b_step, C, c_row, bias, add);
        return;
    }
    g.ctx = ctx; g.M = M; g.N = N; g.K = K; g.add = add;
    g.A = A; g.B = B; g.bias = bias; g.C = C;
    g.a_row = a_row; g.a_step = a_step; g.b_step = b_step; g.c_row = c_row;
    if (packed) {
        ctm_arena copies;
        int pieces = ctm__gemm_cut(&g, ctm__threads(ctx), ctx->kernels->panel);
        ctm_arena_init(&copies, ctx, "copies");
        ctm__parallel_scratch(&copies, pieces, CTM__DEPTH * (size_t)(g.n + CTM__DOWN) * sizeof(ctm_real), ctm__gemm_packed, &g);
        ctm_arena_free(&copies);
    } else {
        g.m = M >= 64 ? 64 : M;
        g.n = M >= 64 ? N : ctm__imin(N, 96);
        ctm_parallel_for(ctx, ((M + g.m - 1) / g.m) * ((N + g.n - 1) / g.n), ctm__gemm_piece, &g);
    }
}

#ifndef CTM_NO_IMAGES
// ---- convolutions, put together from pieces of work that are cut by the shapes alone
typedef struct ctm__conv_job { ctm__conv g; const ctm__kernels *kernels; int across, parts, winograd; size_t part; } ctm__conv_job;

static int ctm__rounded(const ctm__kernels *k, int n) { return (n + k->lanes - 1) / k->lanes * k->lanes; }
static int ctm__panels(const ctm__kernels *k, int N) {
    int p = 0, first = 0;
    for (;; p++) { k->panel_at(N, p, &first); if (first >= N) return p; }
}

// Does Winograd's way pay? It needs 2x2 tiles, and enough channels that the transforms are small beside the products.
static int ctm__use_winograd(const ctm_ctx *ctx, const ctm__conv *g) {
    if (g->k != 3 || g->H % 2 || g->W % 2 || !ctx->winograd) return 0;
    return ctx->winograd == 2 || (g->I >= 16 && g->O >= 16 && g->H * g->W >= 16);
}

static void ctm__pack_piece(void *arg, int p) {
    ctm__conv_job *j = (ctm__conv_job *)arg;
    int rows = j->winograd ? j->g.I : j->g.k * j->g.k * j->g.I, r = p * CTM__PACK_ROWS, end = ctm__imin(rows, r + CTM__PACK_ROWS);
    if (j->winograd) j->kernels->wino_filters(&j->g, r, end);
    else             j->kernels->pack(&j->g, r, end);
}
static void ctm__conv_piece(void *arg, int p) {
    ctm__conv_job *j = (ctm__conv_job *)arg;
    int p0 = p % j->across * CTM__PIXELS;
    j->kernels->conv_panel(&j->g, p / j->across, p0, ctm__imin(j->g.B * j->g.H * j->g.W, p0 + CTM__PIXELS));
}
static void ctm__wino_piece(void *arg, int p, void *scratch) {
    ctm__conv_job *j = (ctm__conv_job *)arg;
    int t = p * j->g.tiles_each;
    j->kernels->wino_tiles(&j->g, t, ctm__imin(j->g.tiles_each, j->g.tiles - t), (ctm_real *)scratch);
}

// out = alpha·(x * w + ...), see ctm__conv. g has everything but packed and zero.
static void ctm__conv_run(ctm_arena *a, const ctm__conv *conv) {
    ctm__conv_job j;
    ctm_mark m = ctm_arena_mark(a);
    ctm__conv *g = &j.g;
    int taps = conv->k * conv->k, wide, rows;
    *g = *conv;
    j.kernels = a->ctx->kernels;
    j.winograd = ctm__use_winograd(a->ctx, g);
    wide = ctm__rounded(j.kernels, g->O);
    rows = j.winograd ? g->I : taps * g->I;
    g->packed = (ctm_real *)ctm_alloc_raw(a, (size_t)((j.winograd ? 16 : taps) * g->I) * (size_t)wide * sizeof(ctm_real));
    g->zero = (const ctm_real *)ctm_alloc(a, (size_t)g->I * sizeof(ctm_real));
    ctm_parallel_for(a->ctx, (rows + CTM__PACK_ROWS - 1) / CTM__PACK_ROWS, ctm__pack_piece, &j);
    if (j.winograd) {
        int each = 4096 / g->I / 8 * 8;                          // 4096 numbers in each of the 16 planes: 256 KB of float
        g->tiles = g->B * (g->H / 2) * (g->W / 2);
        each = each < 16 ? 16 : ctm__imin(each, 128);
        while (each > 16 && 15 * each >= g->tiles) each = (each / 2 + 7) / 8 * 8;     // at least 16 pieces, for as many cores
        g->tiles_each = each;
        ctm__parallel_scratch(a, (g->tiles + each - 1) / each,
                              16 * ((size_t)(g->tiles_each + 8) * (size_t)(g->I + 64) + 32) * sizeof(ctm_real), ctm__wino_piece, &j);
    } else {
        j.across = (g->B * g->H * g->W + CTM__PIXELS - 1) / CTM__PIXELS;
        ctm_parallel_for(a->ctx, j.across * ctm__panels(j.kernels, g->O), ctm__conv_piece, &j);
    }
    ctm_arena_release(a, m);
}

static void ctm__conv_weights_piece(void *arg, int p, void *scratch) {
    ctm__conv_job *j = (ctm__conv_job *)arg;
    j->kernels->conv_weights(&j->g, p % j->across * ctm__channels_each(j->g.k, j->g.I), p / j->across, (ctm_real *)scratch);
}
static void ctm__wino_weights_piece(void *arg, int p, void *scratch) {
    ctm__conv_job *j = (ctm__conv_job *)arg;
    int block = p / j->parts, part = p % j->parts, t = part * j->g.tiles_each;
    j->kernels->wino_weights(&j->g, block / j->across * CTM__WBLOCK, block % j->across * CTM__WBLOCK, t,
                             ctm__imin(j->g.tiles, t + j->g.tiles_each), j->g.du + (size_t)p * j->part, (ctm_real *)scratch);
}
static void ctm__wino_weights_last(void *arg, int p) {
    ctm__conv_job *j = (ctm__conv_job *)arg;
    int block = p / (CTM__WBLOCK / CTM__PACK_ROWS), row = p % (CTM__WBLOCK / CTM__PACK_ROWS) * CTM__PACK_ROWS;
    j->kernels->wino_weights_end(&j->g, block / j->across * CTM__WBLOCK, block % j->across * CTM__WBLOCK, row, row + CTM__PACK_ROWS,
                                 j->parts, j->g.du + (size_t)(block * j->parts) * j->part, j->part);
}

// dw += alpha·(gradient of x * w with respect to w). Winograd's sums are made in a few parts, each of its own stretch of tiles,
// so that there is work for several threads even if one block holds all channels.
static void ctm__conv_weights_run(ctm_arena *a, const ctm__conv *conv) {
    ctm__conv_job j;
    ctm_mark m = ctm_arena_mark(a);
    ctm__conv *g = &j.g;
    if (conv->B == 0 || conv->H == 0 || conv->W == 0) return;    // nothing to add
    *g = *conv;
    j.kernels = a->ctx->kernels;
    if (ctm__use_winograd(a->ctx, g)) {
        int down = (g->I + CTM__WBLOCK - 1) / CTM__WBLOCK, blocks, runs, pieces;
        j.across = (g->O + CTM__WBLOCK - 1) / CTM__WBLOCK;
        blocks = down * j.across;
        g->tiles = g->B * (g->H / 2) * (g->W / 2);
        runs = (g->tiles + CTM__WTILES - 1) / CTM__WTILES;       // of tiles that are transformed together
        pieces = runs * blocks < 64 ? 8 : 16;
        j.parts = (pieces + blocks - 1) / blocks;
        j.parts = ctm__imin(runs, j.parts + (blocks * j.parts) % 2);     // an even number of pieces: cores come in pairs
        g->tiles_each = (runs + j.parts - 1) / j.parts * CTM__WTILES;
        j.part = 16 * CTM__WBLOCK * CTM__WBLOCK + 16;
        g->zero = (const ctm_real *)ctm_alloc(a, (size_t)g->I * sizeof(ctm_real));
        g->du = (ctm_real *)ctm_alloc_raw(a, (size_t)(blocks * j.parts) * j.part * sizeof(ctm_real));
        ctm__parallel_scratch(a, blocks * j.parts, 32 * (CTM__WTILES * CTM__WBLOCK + 32) * sizeof(ctm_real), ctm__wino_weights_piece, &j);
        ctm_parallel_for(a->ctx, blocks * (CTM__WBLOCK / CTM__PACK_ROWS), ctm__wino_weights_last, &j);
    } else {
        j.across = (g->I + ctm__channels_each(g->k, g->I) - 1) / ctm__channels_each(g->k, g->I);
        ctm__parallel_scratch(a, j.across * ctm__panels(j.kernels, g->O),
                              (size_t)(g->W + CTM__PIXELS) * 64 * sizeof(ctm_real), ctm__conv_weights_piece, &j);
    }
    ctm_arena_release(a, m);
}
#endif

CTM__DEF void ctm_exp_rows(ctm_ctx *ctx, size_t n, const ctm_real *x, ctm_real *y) { ctx->kernels->exp_rows(n, x, y); }
CTM__DEF void ctm_log_rows(ctm_ctx *ctx, size_t n, const ctm_real *x, ctm_real *y) { ctx->kernels->log_rows(n, x, y); }
CTM__DEF void ctm_sincos_rows(ctm_ctx *ctx, size_t n, const ctm_real *x, ctm_real *s, ctm_real *c) {
    ctx->kernels->sincos_rows(n, x, s, c);
}
#if defined(__clang__)
#  pragma STDC FP_CONTRACT DEFAULT
#  ifdef __FAST_MATH__
#    pragma float_control(pop)
#  endif
#elif defined(__GNUC__) && !defined(__TINYC__)
#  pragma GCC pop_options
#elif defined(_M_FP_FAST)
#  pragma float_control(pop)
#endif
#ifdef _MSC_VER
#  pragma warning(pop)
#endif
#endif /* second part of the implementation */

#if defined(CTM__NAMES) && !defined(CTM__PASS)  /* your macros and warnings, as they were before this file */
CTM__NAMES(CTM__BACK)
#  undef CTM__PRAGMA
#  undef CTM__ASIDE
#  undef CTM__BACK
#  undef CTM__NAMES
#  ifdef __GNUC__
#    pragma GCC diagnostic pop
#  endif
#endif

/* =====================================================================================================================
   FACTS THAT HAVE CAUSED BUGS
   - The second jump of x_est, by the average, passes the gradient through its input and not into its weights. Without that nothing trains.
   - "Time zero" is sigma_min = 0.002. ln(0) is -infinity, and ln of a tiny s lies far outside of what the embedding of s ever saw.
   - At s = t use g itself, never (G - (s/t)·x)/(1 - s/t), which is 0/0.
   - The score of a CTM is read at s = t for every t; at any other s, g is no denoiser. (The authors' samplers euler, dpm, ancestral and
     progdist leave s at 1.)
   - Heun's method on 18 levels is not the exact flow: from x = 80, for data N(0, 0.5²), it ends at 0.5276 and the flow at 0.5000. A student
     learns the teacher it is given; with more substeps that teacher is nearly exact.
   - Labels belong to rows: whoever picks some rows, or sorts them, must say so to the tape (ctm_pick_rows).
   - Without a teacher, and without a loss on the diagonal or real data in x_u, a student may forget the data: G = (s/t)·x has no loss.
   - Where u = s, a teacher that is the average's own jump gives the very jump that is trained as its target, which teaches nothing.
   - A discriminator's step that lets its gradient reach the student still "works", and so does a student's step that trains the
     discriminator. The frozen view and the unrecorded fakes keep the two apart.
   - Editing at gamma = 1 must jump to sigma_min. The authors' code leaves s out there, and a CTM without its branch of s is untrained.
   - The authors' ELBO takes its residual at q^(1/rho) = 0.413 for q = 0.00205: 8.05 bits per dimension look like 7.75.
   - A sampler whose noise comes from the stream of its x_T adds x_T again after the first jump. Give it a stream of its own.
   - A probe of the divergence must stay the same along the whole path, or the integrand is no function of t.
   - Replacing what is known is no exact conditioning: a free part that is wrong at a small noise level stays wrong.
   - OpenMP's threads spin while they wait. On a machine that is busy with other work, set OMP_WAIT_POLICY=passive in the environment, or
     a step of a millisecond may take ten.

   DEVIATIONS FROM THE PAPER (PAPER_NOTES.md says more about each; of these ctm_recipe_paper() has d0 and d2 to d6, without clip)
   d0 squares in place of LPIPS, no adversary; the optimiser's numbers are for points, and ours
   d1 ctm_recipe_points(): which (t,u,s) are trained, comparison at s, an exact denoiser's answers as targets, and its numbers
   d2 Tweedie's formula has t², where the paper's main text prints t
   d3 an adaptive lambda is clamped to [0, 1e4] with 1e-4 under the fraction, as in the authors' code
   d4 where the paper's s = sqrt(1-gamma²)·t' would fall below sigma_min, it stops there and the noise makes up for it
   d5 "0" is sigma_min everywhere, as in the authors' code
   d6 the moving average may warm up (ema_warmup), and the gradient be shortened (clip)
   d7 before gan_start the discriminator is not trained either, so that those steps are bit for bit those of a run without one
   d8 CTM_GAN_LOG trains the student with -ln p (the usual form), CTM_GAN_MINIMAX with the paper's ln(1 - p)
   d9 ctm_recipe_cd() and ctm_recipe_ct() keep the CTM's parametrisation: at s = sigma_min it has a consistency model's boundary condition
   d10 editing noises the known part from sigma_min to s, so that it comes out exactly; CTM_FORM_AUTHORS leaves their last noise on it
   d11 ctm_elbo takes the residual at q, the first term at its expectation, and stratified levels; CTM_FORM_AUTHORS has their slip
   d12 guidance acts after every jump but the last; stroke-to-X is gamma-sampling from ts[0], with noise sqrt(t'² - s²) for gamma = 1, too
   d13 ctm_recipe_images()

   REFERENCES
   Kim, Lai, Liao, Murata, Takida, Uesaka, He, Mitsufuji, Ermon: Consistency Trajectory Models. ICLR 2024, arXiv 2310.02279.
   Karras, Aittala, Aila, Laine: Elucidating the Design Space of Diffusion-Based Generative Models. NeurIPS 2022.
   Song, Dhariwal, Chen, Sutskever: Consistency Models. ICML 2023.     Song et al.: Score-Based Generative Modeling through SDEs. ICLR 2021.
   Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3. SC 2011.     Liu et al.: On the Variance of the
   Adaptive Learning Rate and Beyond. ICLR 2020 (RAdam).     Perez et al.: FiLM. AAAI 2018.     Kingma, Ba: Adam. ICLR 2015.
   Dormand, Prince: A family of embedded Runge-Kutta formulae. 1980.     Zhang et al.: The Unreasonable Effectiveness of Deep Features as a
   Perceptual Metric. CVPR 2018 (LPIPS).     Simonyan, Zisserman: Very Deep Convolutional Networks. ICLR 2015 (VGG16).     Ho, Salimans:
   Classifier-Free Diffusion Guidance. 2022.     Hutchinson: A Stochastic Estimator of the Trace. 1989.     Lavin, Gray: Fast Algorithms for
   Convolutional Neural Networks. CVPR 2016 (Winograd).

   HISTORY
   0.3.0  recipes with names, choices as functions, a book in reading order, a ladder of lessons; Windows, WebAssembly, big-endian
   0.2.0  images, all samplers, the adversary, likelihood bounds, editing and guidance, teachers by a recipe of their own
   0.1.0  points from end to end

   LICENCE: choose either.
   ALTERNATIVE A - MIT License. Copyright (c) 2026 the ctm.h authors.
   Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
   files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
   modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
   Software is furnished to do so, subject to the following conditions: The above copyright notice and this permission notice
   shall be included in all copies or substantial portions of the Software. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY
   OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR
   PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
   LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR
   THE USE OR OTHER DEALINGS IN THE SOFTWARE.
   ALTERNATIVE B - Public Domain (www.unlicense.org). This is free and unencumbered software released into the public domain.
   Anyone is free to copy, modify, publish, use, compile, sell, or distribute this software, either in source code form or as a
   compiled binary, for any purpose, commercial or non-commercial, and by any means. In jurisdictions that recognize copyright
   laws, the author or authors of this software dedicate any and all copyright interest in the software to the public domain. We
   make this dedication for the benefit of the public at large and to the detriment of our heirs and successors. We intend this
   dedication to be an overt act of relinquishment in perpetuity of all present and future rights to this software under
   copyright law. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND.
   ===================================================================================================================== */
