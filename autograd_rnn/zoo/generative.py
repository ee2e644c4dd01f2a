"""Networks that generate: what they have seen is explained by latent variables, and a bound is what they learn by.

The loss is the negative bound, in nats: what the observed costs given the latent variables, and the divergence of what
was inferred about them from what was expected. Draws are reparameterised: z = mean + deviation * noise.
"""

INFERRED_AND_DECODED = """ce[t] = f_e[t] * ce[t-1] + i_e[t] * g_e[t]
he[t] = o_e[t] * tanh(ce[t])
mu[t] = W_mu @ he[t] + b_mu
sigma[t] = exp(W_sigma @ he[t] + b_sigma)
z[t] = mu[t] + sigma[t] * eps[t]
i_d[t] = sigmoid(W_id @ z[t] + U_id @ hd[t-1] + b_id)
f_d[t] = sigmoid(W_fd @ z[t] + U_fd @ hd[t-1] + b_fd)
o_d[t] = sigmoid(W_od @ z[t] + U_od @ hd[t-1] + b_od)
g_d[t] = tanh(W_gd @ z[t] + U_gd @ hd[t-1] + b_gd)
cd[t] = f_d[t] * cd[t-1] + i_d[t] * g_d[t]
hd[t] = o_d[t] * tanh(cd[t])"""
NOTHING_READ = """
eps: noise(z)
x: input
xh[t] = x - sigmoid(C[t-1])                                    # what the canvas does not yet show
r[t] = concat(x, xh[t], hd[t-1])
i_e[t] = sigmoid(W_ie @ r[t] + U_ie @ he[t-1] + b_ie)
f_e[t] = sigmoid(W_fe @ r[t] + U_fe @ he[t-1] + b_fe)
o_e[t] = sigmoid(W_oe @ r[t] + U_oe @ he[t-1] + b_oe)
g_e[t] = tanh(W_ge @ r[t] + U_ge @ he[t-1] + b_ge)
""" + INFERRED_AND_DECODED + """
C[t] = C[t-1] + W_c @ hd[t] + b_c                              # the canvas
kl[t] = 0.5 * sum(mu[t]**2 + sigma[t]**2 - 2 * log(sigma[t]) - 1)
nll = bce(C[T], x)
loss = nll + sum_t(kl[t])
"""
ATTENTIVE = """
i: axis                                                        # across and down the patch that is read or written
j: axis
a: axis                                                        # across and down the image
b: axis
x: input()
eps: noise(z)
xh[t,b,a] = x[b,a] - sigmoid(C[t-1,b,a])
gx[t] = (A + 1) / 2 * (sum(w_x * hd[t-1]) + b_x + 1)           # the centre of the grid of filters
gy[t] = (B + 1) / 2 * (sum(w_y * hd[t-1]) + b_y + 1)
var[t] = exp(sum(w_var * hd[t-1]) + b_var)
delta[t] = (maximum(A, B) - 1) / (maximum(I, J) - 1) * exp(sum(w_delta * hd[t-1]) + b_delta)
gamma[t] = exp(sum(w_gamma * hd[t-1]) + b_gamma)
fx[t,i,a] = softmax_a(-(a - gx[t] - (i - I / 2 - 0.5) * delta[t])**2 / (2 * var[t]))
fy[t,j,b] = softmax_b(-(b - gy[t] - (j - J / 2 - 0.5) * delta[t])**2 / (2 * var[t]))
down[t,j,a] = sum_b(fy[t,j,b] * x[b,a])
downh[t,j,a] = sum_b(fy[t,j,b] * xh[t,b,a])
r[t,j,i] = gamma[t] * sum_a(down[t,j,a] * fx[t,i,a])
rh[t,j,i] = gamma[t] * sum_a(downh[t,j,a] * fx[t,i,a])
p_i[t] = sum_j(sum_i(P_i[j,i] * r[t,j,i] + Q_i[j,i] * rh[t,j,i]))
p_f[t] = sum_j(sum_i(P_f[j,i] * r[t,j,i] + Q_f[j,i] * rh[t,j,i]))
p_o[t] = sum_j(sum_i(P_o[j,i] * r[t,j,i] + Q_o[j,i] * rh[t,j,i]))
p_g[t] = sum_j(sum_i(P_g[j,i] * r[t,j,i] + Q_g[j,i] * rh[t,j,i]))
i_e[t] = sigmoid(p_i[t] + W_ie @ hd[t-1] + U_ie @ he[t-1] + b_ie)
f_e[t] = sigmoid(p_f[t] + W_fe @ hd[t-1] + U_fe @ he[t-1] + b_fe)
o_e[t] = sigmoid(p_o[t] + W_oe @ hd[t-1] + U_oe @ he[t-1] + b_oe)
g_e[t] = tanh(p_g[t] + W_ge @ hd[t-1] + U_ge @ he[t-1] + b_ge)
""" + INFERRED_AND_DECODED + """
wx[t] = (A + 1) / 2 * (sum(v_x * hd[t]) + c_x + 1)             # another, by the new state, for writing
wy[t] = (B + 1) / 2 * (sum(v_y * hd[t]) + c_y + 1)
wvar[t] = exp(sum(v_var * hd[t]) + c_var)
wdelta[t] = (maximum(A, B) - 1) / (maximum(I, J) - 1) * exp(sum(v_delta * hd[t]) + c_delta)
wgamma[t] = exp(sum(v_gamma * hd[t]) + c_gamma)
hx[t,i,a] = softmax_a(-(a - wx[t] - (i - I / 2 - 0.5) * wdelta[t])**2 / (2 * wvar[t]))
hy[t,j,b] = softmax_b(-(b - wy[t] - (j - J / 2 - 0.5) * wdelta[t])**2 / (2 * wvar[t]))
w[t,j,i] = sum(W_w[j,i] * hd[t]) + b_w[j,i]
up[t,b,i] = sum_j(hy[t,j,b] * w[t,j,i])
C[t,b,a] = C[t-1,b,a] + sum_i(up[t,b,i] * hx[t,i,a]) / wgamma[t]
kl[t] = 0.5 * sum(mu[t]**2 + sigma[t]**2 - 2 * log(sigma[t]) - 1)
nll = sum_b(sum_a(softplus(C[T,b,a]) - x[b,a] * C[T,b,a]))
loss = nll + sum_t(kl[t])
"""
INFERRED = """
eps: noise(z)
phi_x[t] = relu(W_x @ x[t] + b_x)
prior[t] = relu(W_p @ h[t-1] + b_p)
mu0[t] = W_pm @ prior[t] + b_pm
sigma0[t] = softplus(W_ps @ prior[t] + b_ps) + 0.0001
enc[t] = relu(W_e @ concat(phi_x[t], h[t-1]) + b_e)
mu[t] = W_em @ enc[t] + b_em
sigma[t] = softplus(W_es @ enc[t] + b_es) + 0.0001
z[t] = mu[t] + sigma[t] * eps[t]
phi_z[t] = relu(W_z @ z[t] + b_z)
dec[t] = relu(W_d @ concat(phi_z[t], h[t-1]) + b_d)
y[t] = V @ dec[t] + b_y
v[t] = concat(phi_x[t], phi_z[t])
i[t] = sigmoid(W_i @ v[t] + U_i @ h[t-1] + b_i)
f[t] = sigmoid(W_f @ v[t] + U_f @ h[t-1] + b_f)
o[t] = sigmoid(W_o @ v[t] + U_o @ h[t-1] + b_o)
g[t] = tanh(W_g @ v[t] + U_g @ h[t-1] + b_g)
c[t] = f[t] * c[t-1] + i[t] * g[t]
h[t] = o[t] * tanh(c[t])
kl[t] = 0.5 * sum(2 * log(sigma0[t] / sigma[t]) + (sigma[t]**2 + (mu[t] - mu0[t])**2) / sigma0[t]**2 - 1)
"""
ONE_WAY = """q[t] = tanh(W_q @ x[t] + U_q @ q[t-1] + b_q)                      # what recognises
"""
BOTH_WAYS = """qf[t] = tanh(W_qf @ x[t] + U_qf @ qf[t-1] + b_qf)
qb[t] = tanh(W_qb @ x[t] + U_qb @ qb[t+1] + b_qb)
q[t] = concat(qf[t], qb[t])
"""
STOCHASTIC = """mu[t] = W_mu @ q[t] + b_mu
sigma[t] = softplus(W_sigma @ q[t] + b_sigma)
z[t] = mu[t] + sigma[t] * eps[t]
dec[t] = tanh(W @ x[t-1] + W_z @ z[t] + U @ dec[t-1] + b)         # what generates
y[t] = V @ dec[t] + b_y
kl[t] = 0.5 * sum(mu[t]**2 + sigma[t]**2 - 2 * log(sigma[t]) - 1)
eps: noise(z)
"""
BERNOULLI = """nll[t] = bce(y[t], x[t])
loss = sum_t(nll[t] + kl[t])
"""
GAUSSIAN = """sigma_x[t] = softplus(V_s @ dec[t] + b_s) + 0.0001
nll[t] = 0.5 * sum(log(6.283185307179586) + 2 * log(sigma_x[t]) + ((x[t] - y[t]) / sigma_x[t])**2)
loss = sum_t(nll[t] + kl[t])
"""
DRAW = "Gregor, Danihelka, Graves, Rezende, Wierstra, DRAW: a recurrent neural network for image generation, " \
       "arXiv:1502.04623, 2015"
VRNN = "Chung, Kastner, Dinh, Goel, Courville, Bengio, A recurrent latent variable model for sequential data, " \
       "arXiv:1506.02216, 2015"
STORN = "Bayer, Osendorfer, Learning stochastic recurrent networks, arXiv:1411.7610, 2014"
SAMPLES = "New ones are drawn from what is expected: substitute({})."

CELLS = {
    "draw": dict(
        text=NOTHING_READ, rules=dict(b_fe=1.0, b_fd=1.0),
        citation=DRAW + ", section 2: without attention",
        notes="An image of numbers from 0 to 1, told by Bernoulli variables. The encoder sees the whole image and what "
              "the canvas lacks. " + SAMPLES.format("z='eps[t]'") + " The forget bias of 1 is ours.",
    ),
    "draw_attention": dict(
        text=ATTENTIVE, rules=dict(b_fe=1.0, b_fd=1.0),
        citation=DRAW + ", section 3: selective attention",
        notes="Filters i = 1 to N stand at g + (i - N/2 - 0.5) delta. Implementations that count i from 0 in that "
              "formula are off by one delta. Rows of filters are normalised by a softmax, which no width can bring to "
              "0/0. Reading and writing have weights of their own for the attention. "
              + SAMPLES.format("z='eps[t]'"),
    ),
    "vrnn": dict(
        text=INFERRED + BERNOULLI, rules=dict(b_f=1.0),
        citation=VRNN,
        notes="f is an LSTM and deviations are softplus + 1e-4, as in the authors' code; each phi is one layer here, "
              "four there. Bernoulli outputs. What is expected depends on the past. "
              + SAMPLES.format("z='mu0[t] + sigma0[t] * eps[t]'") + " The forget bias of 1 is ours.",
    ),
    "vrnn_gauss": dict(
        text=INFERRED + GAUSSIAN, rules=dict(b_f=1.0),
        citation=VRNN + "; VRNN-Gauss",
        notes="Gaussian outputs with a deviation for each component.",
    ),
    "vrnn_i": dict(
        base="vrnn", changes=dict(mu0="0", sigma0="1"),
        citation=VRNN + "; VRNN-I",
        notes="What is expected of z does not depend on the past: N(0, 1) at each step.",
    ),
    "storn": dict(
        text=ONE_WAY + STOCHASTIC + BERNOULLI,
        citation=STORN,
        notes="What is expected of z is N(0, 1) at each step. The authors' code adds fast dropout. "
              + SAMPLES.format("z='eps[t]'"),
    ),
    "storn_both": dict(
        text=BOTH_WAYS + STOCHASTIC + BERNOULLI,
        citation=STORN + "; recognition in both directions",
        notes="What is inferred about z[t] has seen the whole sequence.",
    ),
    "storn_gauss": dict(
        text=ONE_WAY + STOCHASTIC + GAUSSIAN,
        citation=STORN + "; Gaussian outputs",
        notes="With a deviation for each component.",
    ),
}
