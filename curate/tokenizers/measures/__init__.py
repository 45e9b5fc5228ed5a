"""How close what a codec gives back is to what went in: PSNR, SSIM, SI-SDR, PESQ, ViSQOL."""
